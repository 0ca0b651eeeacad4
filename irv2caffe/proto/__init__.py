"""Caffe's file formats: protobuf messages, prototxt and binary files.

Functions take paths or texts and return protobuf messages, numpy arrays or positions in a text.
Imports ``atomic``, ``system`` and ``errors`` only.
"""
