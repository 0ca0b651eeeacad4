"""The fast path of :mod:`irv2caffe.log.read.reader`, for long logs.

In come blocks of whole lines; they are added to the history of a
:class:`~irv2caffe.log.read.line_reader.LineReader` with the same result as line by line.
:class:`~irv2caffe.log.read.fast.blocks.BlockReader` is the only interface, and ``reader`` its only
user; it imports the modules of ``log.read`` below ``reader``.
"""
