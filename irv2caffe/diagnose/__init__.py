"""Why a training does not converge, or stalled: symptoms, evidence, causes and cures.

In: a run folder, a log or a published curve, with a solver and a model where there are any.
Out: findings, the one that fits the evidence best first.
May import: all rooms below.
"""
