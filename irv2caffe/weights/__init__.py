"""timm, Keras and TF-slim weights to ``.caffemodel``, and back to timm."""

from irv2caffe.weights.exporting import ExportReport, export_weights
from irv2caffe.weights.importing import ImportReport, import_weights

__all__ = ["ExportReport", "ImportReport", "export_weights", "import_weights"]
