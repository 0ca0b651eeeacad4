"""Classifies image files with onnxruntime: python classify_onnx.py IMAGE...

Prints a line for each of the three most probable classes: file, class number, name, probability.
"""

import sys

import onnxruntime
from prepare import HERE, prepare, show

paths = sys.argv[1:] or sys.exit(__doc__)
session = onnxruntime.InferenceSession(str(HERE / "net.onnx"), providers=["CPUExecutionProvider"])
names = session.get_inputs()[0].name, session.get_outputs()[0].name
for path in paths:
    show(path, session.run([names[1]], {names[0]: prepare(path)})[0])
