"""``python -m irv2caffe.engine``."""

import sys

from irv2caffe.engine.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
