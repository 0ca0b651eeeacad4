"""Classifies image files with OpenCV 4: python classify_opencv.py IMAGE...

OpenCV 5 no longer reads Caffe's files; it reads net.onnx, if the bundle was made with --onnx.
Prints a line for each of the three most probable classes: file, class number, name, probability.
"""

import os
import sys

import cv2
from prepare import HERE, prepare, show

ONNX = os.path.join(HERE, "net.onnx")
if hasattr(cv2.dnn, "readNetFromCaffe"):
    net = cv2.dnn.readNetFromCaffe(
        os.path.join(HERE, "deploy.prototxt"), os.path.join(HERE, "deploy.caffemodel")
    )
elif os.path.exists(ONNX):
    net = cv2.dnn.readNetFromONNX(ONNX)
else:
    sys.exit(
        "OpenCV %s no longer reads Caffe's files: install OpenCV 4 "
        "(pip install 'opencv-python-headless<5'), or make the bundle with --onnx" % cv2.__version__
    )
for path in sys.argv[1:] or sys.exit(__doc__):
    net.setInput(prepare(path))
    show(path, net.forward())
