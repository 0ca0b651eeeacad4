"""The supervision of a training: Caffe is started, watched, restarted, and its end judged.

A plan and options come in; a filled run folder and a TrainResult go out. It may import train.plan,
train.run_dir, caffe, log and what is below them; only cli imports it.
"""
