"""Several processes that train as one: starting them, what they exchange, and several machines.

A process of a group is a rank, as everywhere in torch.distributed; Caffe says solver. The launcher
gives its ranks the environment that torchrun gives, so that either can start them.
"""
