"""The training loop: learning rates, updates, tests, displays, snapshots and signals as in Caffe.

Takes a SolverParameter and what a run needs besides (feeds, a step, a group of processes); gives
Caffe's log lines and its snapshot files.
"""
