"""Supervises a training: starts Caffe, watches and restarts it, and reports how it ended.

A plan and options come in; a filled run folder and a TrainResult go out. It may import train.plan,
train.run_dir, caffe, log and the packages below them; only cli imports it.
"""
