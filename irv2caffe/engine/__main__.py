"""``python -m irv2caffe.engine``."""

import os
import sys

# Threads that wait for others sleep. By default OpenMP has them compute on, so that an iteration
# takes ten times as long as soon as another program needs a core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from irv2caffe.engine.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
