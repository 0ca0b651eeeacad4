"""Lint of nets and solvers, also foreign ones, before a GPU-day is spent.

Importing the topics lists their rules.
"""

from irv2caffe.check.files import Reading
from irv2caffe.check.finding import RULES, Finding, Severity, findings
from irv2caffe.check.nets import gather

# In the order in which findings of one severity are shown.
from irv2caffe.check.rules import (  # isort: skip
    unknown_fields,
    schema,
    grid,
    batch_norm,
    residual,
    fillers,
    head,
    data,
    records,
    phases,
    solver,
    update,
    schedule,
    snapshots,
)

__all__ = [
    "RULES",
    "Finding",
    "Reading",
    "Severity",
    "batch_norm",
    "data",
    "fillers",
    "findings",
    "gather",
    "grid",
    "head",
    "phases",
    "records",
    "residual",
    "schedule",
    "schema",
    "snapshots",
    "solver",
    "unknown_fields",
    "update",
]
