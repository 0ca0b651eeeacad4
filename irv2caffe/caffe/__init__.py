"""Finds, installs and runs BVLC Caffe.

Returns a FoundCaffe, the commands that run its programs, and what it can do. Imports ``atomic``,
``ui``, ``system`` and ``errors`` only.
"""
