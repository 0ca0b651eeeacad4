"""Plans a training and checks it before anything is written or started.

In come a solver, the Caffe that will train and the options of the command line; out comes a Plan:
the job with its databases, devices, memory, disk, findings and problems. It may import
train.run_dir, check and the rooms below those; train.run and the commands import it.
"""
