"""Where the tests find files of the checkout."""

from pathlib import Path

HELPERS = Path(__file__).resolve().parent
TESTS = HELPERS.parent
FILES = TESTS / "files"
ROOT = TESTS.parent
OPENCV4 = ROOT / ".venv" / "opencv4"  # by scripts/test, beside the OpenCV 5 of the tests
SHARED_DATA = ROOT.parent / "shared" / "data"  # real images, beside some checkouts
