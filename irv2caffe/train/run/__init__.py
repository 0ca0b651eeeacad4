"""Starts Caffe, watches it, restarts it and says how it ended."""
