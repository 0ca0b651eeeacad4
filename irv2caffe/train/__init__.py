"""Training: the plan, the run folder, and the supervision of Caffe."""
