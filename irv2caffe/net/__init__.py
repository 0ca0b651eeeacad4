"""The network and its solver: prototxts of Inception-ResNet-v2.

Takes the frozen options of ``config``; gives NetParameters, a SolverParameter and their files.
May import ``proto`` and ``config``, and what all rooms import: atomic, ui, system, errors.
"""
