"""Reads the training logs of any Caffe, and finds anomalies in the run.

The input is log files; the output tables of rows, a summary with findings, CSV, JSON and
TensorBoard events. Imports ``atomic``, ``ui``, ``system`` and ``errors`` only.

As a library::

    from irv2caffe.log.read.reader import read_log
    from irv2caffe.log.summary import summarize
    from irv2caffe.log.table import make_table

    table = make_table(read_log(Path("train.log")), num_train_images=1_281_167)
    for row in table.train:      # iteration, epoch, loss, lr, seconds, images_per_second, outputs
        ...
    for row in table.test:       # iteration, epoch, net, top1_error, top5_error, loss, outputs
        ...
    summarize(table).as_dict()   # best and last errors, rate, hours, anomalies ...

:func:`irv2caffe.log.read.parse.parse` is the pure function from a line to an event;
:class:`irv2caffe.log.read.reader.Reader` takes lines or chunks of a file one by one;
:func:`irv2caffe.log.export.write_csv` and :func:`~irv2caffe.log.export.read_csv` write and read
rows; :func:`irv2caffe.log.reference.reference_runs` returns published training curves.
"""
