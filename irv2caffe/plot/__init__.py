"""5. Draw it: figures, and a report with interactive curves.

:func:`irv2caffe.plot.figure.draw` writes a figure of one run or several,
:func:`irv2caffe.plot.report.write_report` a page. Of this package only ``figure`` uses matplotlib.
"""
