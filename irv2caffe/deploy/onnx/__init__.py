"""Writes a net as an ONNX file, by hand: the format is a small protobuf message.

In: a graph of deploy.graph. Out: a .onnx of operator set 13.
"""
