"""Classifies image files with onnxruntime: python classify_onnx.py IMAGE...

Prints a line for each of the three most probable classes: file, class number, name, probability.
"""

import os
import sys

import onnxruntime
from prepare import HERE, prepare, show

session = onnxruntime.InferenceSession(
    os.path.join(HERE, "net.onnx"), providers=["CPUExecutionProvider"]
)
for path in sys.argv[1:] or sys.exit(__doc__):
    show(path, session.run([session.get_outputs()[-1].name], {session.get_inputs()[0].name: prepare(path)})[0])
