"""Converts weights of timm, Keras and TF-slim to ``.caffemodel``, and back to timm.

Takes weight files, a net and a ``.caffemodel``; gives the converted file and a report.
May import ``proto``, and what all rooms import: atomic, ui, system, errors.
"""

from irv2caffe.weights.exporting import ExportReport, export_weights
from irv2caffe.weights.importing import ImportReport, import_weights

__all__ = ["ExportReport", "ImportReport", "export_weights", "import_weights"]
