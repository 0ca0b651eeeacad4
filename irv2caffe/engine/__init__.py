"""The torch engine: a program that trains a solver and its nets on PyTorch as Caffe does.

Takes a solver prototxt, the nets and databases that it names, and the files of a snapshot; gives
Caffe's log lines on stderr, ``.caffemodel`` and ``.solverstate``. ``train`` starts it as a child
process (``python -m irv2caffe.engine``), as it starts the caffe program. The only room that imports
torch for training; nobody imports it. May import ``shapes``, ``proto``, ``data``, ``log.read``, and
what all rooms import: atomic, ui, system, errors. ``forward`` runs a net for
another process, by the protocol of ``inference.worker``.
"""
