"""The fast path of :mod:`irv2caffe.log.read.reader`, for long logs.

Adds blocks of whole lines to the history of a
:class:`~irv2caffe.log.read.line_reader.LineReader`, with the same result as line by line.
:class:`~irv2caffe.log.read.fast.blocks.BlockReader` is the interface, used by ``reader`` only;
imports the modules of ``log.read`` below ``reader``.
"""
