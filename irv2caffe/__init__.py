"""Build, train and inspect Inception-ResNet-v2 in Caffe, from a folder of images on.

The packages follow the workflow: :mod:`irv2caffe.caffe` installs and finds Caffe,
:mod:`irv2caffe.data` builds the databases, :mod:`irv2caffe.net` writes the network,
:mod:`irv2caffe.check` finds mistakes, :mod:`irv2caffe.train` runs the training,
:mod:`irv2caffe.log` reads its log, :mod:`irv2caffe.plot` plots it and :mod:`irv2caffe.weights`
converts pretrained weights. :mod:`irv2caffe.proto` reads and writes Caffe's file formats.
Importing this package imports none of them.
"""

__version__ = "0.2.0"
