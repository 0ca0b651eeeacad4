"""Lint of nets and solvers, also foreign ones, before a GPU-day is spent.

:func:`read` finds and reads the files, :func:`gather` makes evidence of them and of facts about
databases, and :func:`findings` is what the rules say of it. Importing the topics lists their rules.
"""

from irv2caffe.net.check.files import Reading
from irv2caffe.net.check.finding import RULES, Finding, Severity, findings
from irv2caffe.net.check.nets import gather
from irv2caffe.net.check.read import read

# In the order in which findings of one severity are shown.
from irv2caffe.net.check import (  # isort: skip
    unknown,
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
    "read",
    "records",
    "residual",
    "schedule",
    "schema",
    "snapshots",
    "solver",
    "unknown",
    "update",
]
