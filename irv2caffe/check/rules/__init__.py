"""Rules for nets and solvers of any origin. Importing this package registers all of them.

In: evidence of a run (:mod:`irv2caffe.check.evidence`). Out: hits, collected by
:mod:`irv2caffe.check.registry`. Rules import the modules of ``check`` beside them, but no files.
"""

# In the order in which findings of one severity are shown.
from irv2caffe.check.rules import (  # noqa: F401  # isort: skip
    unknown_fields,
    schema,
    grid,
    batch_norm,
    residual,
    fillers,
    head,
    data,
    records,
    classes,
    phases,
    solver,
    update,
    schedule,
    snapshots,
)
