"""Where the tests find files of the checkout."""

from pathlib import Path

HELPERS = Path(__file__).resolve().parent
TESTS = HELPERS.parent
FILES = TESTS / "files"
ROOT = TESTS.parent
