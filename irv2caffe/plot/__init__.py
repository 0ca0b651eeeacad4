"""Figures, and reports with interactive curves.

Takes the rows of runs: :func:`irv2caffe.plot.figure.draw` writes a figure,
:func:`irv2caffe.plot.report.write_report` an HTML page, and :mod:`irv2caffe.plot.session` runs
``plot-log``. Imports ``log`` and what it may import; only ``figure``, ``lines`` and
``scales`` use matplotlib.
"""
