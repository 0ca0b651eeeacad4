"""Classifies image files with pycaffe: python classify_caffe.py IMAGE...

Prints a line for each of the three most probable classes: file, class number, name, probability.
"""

import os
import sys

os.environ.setdefault("GLOG_minloglevel", "2")
import caffe
from prepare import HERE, prepare, show

paths = sys.argv[1:] or sys.exit(__doc__)
net = caffe.Net(str(HERE / "deploy.prototxt"), str(HERE / "deploy.caffemodel"), caffe.TEST)
for path in paths:
    net.blobs[net.inputs[0]].data[...] = prepare(path)
    show(path, net.forward()[net.outputs[-1]])
