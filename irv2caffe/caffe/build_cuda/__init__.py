"""Builds the real Caffe with CUDA from packages alone, as an ordinary user."""
