"""Classifies image files with OpenCV 4: python classify_opencv.py IMAGE...

OpenCV 5 no longer reads Caffe's files; it reads net.onnx, if the bundle was made with --onnx.
Prints a line for each of the three most probable classes: file, class number, name, probability.
"""

import sys

import cv2
from prepare import HERE, prepare, show

paths = sys.argv[1:] or sys.exit(__doc__)
ONNX = HERE / "net.onnx"
if hasattr(cv2.dnn, "readNetFromCaffe"):
    net = cv2.dnn.readNetFromCaffe(str(HERE / "deploy.prototxt"), str(HERE / "deploy.caffemodel"))
elif ONNX.exists():
    net = cv2.dnn.readNetFromONNX(str(ONNX))
else:
    sys.exit(
        f"OpenCV {cv2.__version__} no longer reads Caffe's files: install OpenCV 4 "
        "(pip install 'opencv-python-headless<5'), or make the bundle with --onnx"
    )
for path in paths:
    net.setInput(prepare(path))
    show(path, net.forward())
