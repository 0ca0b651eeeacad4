"""Figures, and reports with interactive curves.

In come the rows of runs; out come files: :func:`irv2caffe.plot.figure.draw` writes a figure,
:func:`irv2caffe.plot.report.write_report` an HTML page, and :mod:`irv2caffe.plot.session` does all
that ``plot-log`` does. Imports ``log`` and the floors below; only ``figure``, ``lines`` and
``scales`` use matplotlib.
"""
