"""Trains with Caffe and supervises the training.

In come a solver or a recipe, databases and GPUs; out come a run folder with logs, metrics, plots
and snapshots, and a result. ``run`` supervises, ``plan`` checks before the start, ``run_dir`` holds
the files; imports ``check``, ``plot`` and the rooms below them, and only ``cli`` imports it.
"""
