"""From the text of a log to the history of a run.

In come log files (or lines) of any Caffe; out come :class:`~irv2caffe.log.read.history.Log`, the
history, and events, the facts of single lines. Imports only ``errors`` and ``system``.
"""
