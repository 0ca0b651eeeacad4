"""The run folder: its files, its lock, its snapshots, and requests to the trainer that uses it.

Paths and the JSON records of a run come in; verified snapshots, records and a held lock go out. It
may import caffe, log, proto, shapes, weights and the packages below them, nothing else of train.
"""
