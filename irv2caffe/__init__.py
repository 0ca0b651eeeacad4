"""From a folder of images to a trained, deployable Inception-ResNet-v2 in Caffe.

The rooms follow the workflow: :mod:`irv2caffe.caffe` finds and installs the real Caffe,
:mod:`irv2caffe.net` describes the network, :mod:`irv2caffe.data` builds the databases,
:mod:`irv2caffe.train` runs the training, :mod:`irv2caffe.log` reads what Caffe printed and
:mod:`irv2caffe.plot` draws it. :mod:`irv2caffe.proto` holds the Caffe file formats.
Importing this package imports none of them.
"""

__version__ = "0.1.0"
