"""The programs that train: Caffe, and the torch engine, which behaves as Caffe does.

Takes what the user asked for; gives an Engine, which the plan describes and the run starts. May
import ``run_dir``, rooms below ``train``, and what all rooms import.
"""
