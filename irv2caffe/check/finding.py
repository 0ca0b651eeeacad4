"""Severity, Place, Hit and Finding: the results of rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any


class Severity(IntEnum):
    """How bad a finding is.

    An error stops Caffe or makes the run worthless; a warning costs accuracy or time in most
    runs; a note is information, and intended in many nets.
    """

    NOTE = 0
    WARNING = 1
    ERROR = 2

    @property
    def label(self) -> str:
        """The name in lower case."""
        return self.name.lower()


NOTE, WARNING, ERROR = Severity.NOTE, Severity.WARNING, Severity.ERROR


@dataclass(frozen=True, order=True)
class Place:
    """A line of a file.

    Attributes:
        file: path as the user or the solver gives it.
        line: from 1; 0 for the file as a whole, where a field is missing.
        layer: name of the layer, or empty.
    """

    file: str
    line: int = 0
    layer: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{self.layer} ({where})" if self.layer else where


@dataclass(frozen=True)
class Hit:
    """One result of a rule.

    Attributes:
        what: the problem in one sentence, the same for all affected layers.
        why: why it matters.
        fix: a field to write, or a flag.
        at: where it is.
        severity: overrides the rule's severity.
        source: overrides the rule's source.
    """

    what: str
    why: str
    fix: str
    at: tuple[Place, ...] = ()
    severity: Severity | None = None
    source: str = ""


Hits = Iterator[Hit]


@dataclass(frozen=True)
class Finding:
    """A hit with its rule; equal hits in several layers are one finding.

    Attributes:
        rule: name of the rule.
        severity: note, warning or error.
        what: the problem.
        why: why it matters.
        source: where the fact comes from: a file of Caffe, a section of a paper, a public thread.
        fix: how to correct it.
        places: where it is, each place once, in the order of the files.
    """

    rule: str
    severity: Severity
    what: str
    why: str
    source: str
    fix: str
    places: tuple[Place, ...]

    def as_dict(self) -> dict[str, Any]:
        """The finding for JSON."""
        places = [
            {"file": place.file, "line": place.line or None, "layer": place.layer or None}
            for place in self.places
        ]
        return {**vars(self), "severity": self.severity.label, "places": places}
