"""Reads the text of a log into the history of a run.

The input is log files or lines of any Caffe; the output a :class:`~irv2caffe.log.read.history.Log`,
the history, or the event of each line. Imports only ``errors`` and ``system``.
"""
