"""Checks a run before it starts: reads its files and databases, and runs the rules."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import irv2caffe.check.rules  # noqa: F401  registers the rules
from irv2caffe.check.arithmetic import summary
from irv2caffe.check.finding import Finding, Hit, Severity
from irv2caffe.check.inputs import Claims
from irv2caffe.check.nets import gather
from irv2caffe.check.read import read
from irv2caffe.check.registry import RULES, findings
from irv2caffe.data.inspect.database import read_databases
from irv2caffe.data.inspect.sample import MAX_LIST_BYTES, read_image_list
from irv2caffe.errors import FormatError, Irv2CaffeError, UsageError, did_you_mean
from irv2caffe.proto import messages
from irv2caffe.proto.binary import read_binary

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from irv2caffe.check.evidence import Evidence, Layer
    from irv2caffe.check.files import Reading
    from irv2caffe.check.inputs import Flavor
    from irv2caffe.data.inspect.database import Database, Databases


@dataclass(frozen=True)
class CheckOptions:
    """Options of a check.

    Attributes:
        train_lmdb: database to check instead of the one that TRAIN reads.
        val_lmdb: database to check instead of the one that TEST reads.
        weights: the .caffemodel that the run starts from.
        flavor: Caffe that will train.
        num_gpus: number of GPUs used for training; 0 takes build-net's header, else one device.
        epochs: intended length of the run.
        lr_decay_epochs: epochs between two steps of the learning rate.
        num_train: number of training images, instead of the database's.
        num_val: number of validation images, instead of the database's.
        ignore: names of rules to skip.
        databases: databases that are already read, or their errors, by folder.
        cudnn: whether the Caffe that will train has cuDNN; None if unknown.
    """

    train_lmdb: Path | None = None
    val_lmdb: Path | None = None
    weights: Path | None = None
    flavor: Flavor = "bvlc"
    num_gpus: int = 0
    epochs: float | None = None
    lr_decay_epochs: float | None = None
    num_train: int | None = None
    num_val: int | None = None
    ignore: frozenset[str] = frozenset()
    databases: Databases = field(default_factory=dict)
    cudnn: bool | None = None


@dataclass(frozen=True)
class Report:
    """The result of a check.

    Attributes:
        kind: ``solver`` or ``net``.
        files: the files that were read, the given one first.
        summary: the run in up to two lines.
        findings: the findings, worst first.
        databases: facts about the databases, by the source as written.
    """

    kind: str
    files: tuple[str, ...]
    summary: tuple[str, ...]
    findings: tuple[Finding, ...]
    databases: Mapping[str, Database] = field(default_factory=dict)

    @property
    def worst(self) -> Severity | None:
        """The highest severity, or None without findings."""
        return max((finding.severity for finding in self.findings), default=None)

    def count(self, severity: Severity) -> int:
        """Findings of one severity."""
        return sum(finding.severity is severity for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """The report for JSON."""
        return {
            "kind": self.kind,
            "files": list(self.files),
            "summary": list(self.summary),
            "databases": {name: each.as_dict() for name, each in self.databases.items()},
            "counts": {each.label: self.count(each) for each in reversed(Severity)},
            "findings": [finding.as_dict() for finding in self.findings],
        }


def check(path: Path, options: CheckOptions | None = None) -> Report:
    """Checks a solver with its nets, or a net, and the databases they read.

    Args:
        path: a prototxt.
        options: what is not in the files.

    Raises:
        MissingInputError: a file or a given database is missing.
        FormatError: a file is invalid; the message has the place.
        UsageError: no rule of a name to ignore.
    """
    options = options or CheckOptions()
    _known(options.ignore)  # before any file is read
    return check_reading(read(path), options)


def check_reading(reading: Reading, options: CheckOptions) -> Report:
    """Checks a solver and nets that are already read; see :func:`check`.

    Args:
        reading: the files, maybe with changed messages.
        options: what is not in the files.

    Raises:
        Irv2CaffeError: a database that the options name cannot be read.
        UsageError: no rule of a name to ignore.
    """
    rules = [rule for rule in RULES.values() if rule.name not in _known(options.ignore)]
    evidence = gather_evidence(reading, options)
    names = [] if reading.solver is None else [reading.solver.name]
    names += [net.file.name for net in reading.nets]
    return Report(
        kind="net" if reading.solver is None else "solver",
        files=tuple(dict.fromkeys(names)),
        summary=tuple(summary(evidence)),
        findings=tuple(findings(evidence, rules)),
        databases=evidence.databases,
    )


def gather_evidence(reading: Reading, options: CheckOptions) -> Evidence:
    """The nets of files and the facts of their databases.

    Raises:
        Irv2CaffeError: a database that the options name cannot be read.
    """
    troubles = list(reading.troubles)
    databases = _databases(reading, options, troubles)
    return gather(replace(reading, troubles=troubles), databases, claims_of(options))


def _known(names: frozenset[str]) -> frozenset[str]:
    for name in sorted(names):
        if name not in RULES:
            hint = did_you_mean(name, RULES) or "check --list-rules lists them"
            raise UsageError(f"no rule {name!r}", hint)
    return names


def claims_of(options: CheckOptions) -> Claims:
    """What the options say of the run."""
    return Claims(
        flavor=options.flavor,
        num_gpus=options.num_gpus,
        epochs=options.epochs,
        lr_decay_epochs=options.lr_decay_epochs,
        num_train=options.num_train,
        num_val=options.num_val,
        weights=None if options.weights is None else _weights(options.weights),
        cudnn=options.cudnn,
    )


def _weights(path: Path) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Shapes of the blobs of every layer in a .caffemodel."""
    net = read_binary(path, messages.NetParameter)
    found = {}
    for layer in [*net.layer, *net.layers]:
        if layer.blobs:
            found[layer.name] = tuple(_shape(blob) for blob in layer.blobs)
    return found


def _shape(blob: Any) -> tuple[int, ...]:
    if blob.HasField("shape"):
        return tuple(blob.shape.dim)
    return (blob.num, blob.channels, blob.height, blob.width)


def _databases(
    reading: Reading, options: CheckOptions, troubles: list[tuple[str, Hit]]
) -> dict[str, Database]:
    """The databases and lists that the nets read, by the source as written.

    A database given by the user must be readable; an unreadable one that only the net names is a
    finding, which is added to ``troubles``.
    """
    given = {"TRAIN": options.train_lmdb, "TEST": options.val_lmdb}
    places: dict[str, tuple[Layer, Path]] = {}
    for net in gather(reading).nets:
        for layer in net.data_layers:
            source = layer.source
            instead = given.get(net.phase) if layer.type == "Data" else None
            path = instead or reading.paths.get(source)
            if path is None or (not instead and source in places):
                continue
            if instead or _can_read(layer.type, path):
                places[source] = (layer, path)
    named = [path for path in given.values() if path is not None]
    lmdbs = [path for layer, path in places.values() if layer.type == "Data"]
    outcomes = read_databases([*named, *lmdbs], known=options.databases)
    for path in named:
        _value(outcomes[path])
    found: dict[str, Database] = {}
    for source, (layer, path) in places.items():
        try:
            found[source] = _value(outcomes[path]) if layer.type == "Data" else _list(path)
        except Irv2CaffeError as error:
            hit = Hit(
                what=f"{source} cannot be read: {_without_path(error.message, path)}",
                why="Caffe stops when it opens or reads it",
                fix=error.hint or "build it again",
                at=layer.at_data("source"),
            )
            troubles.append(("data-unreadable", hit))
    return found


def _value(outcome: Database | Irv2CaffeError) -> Database:
    if isinstance(outcome, Irv2CaffeError):
        raise outcome
    return outcome


def _can_read(layer_type: str, path: Path) -> bool:
    """Whether a source is read: a database, a list that is not too long, or not a file at all."""
    if layer_type == "Data" or not path.is_file():
        return True
    return layer_type == "ImageData" and path.stat().st_size < MAX_LIST_BYTES


def _list(path: Path) -> Database:
    if not path.is_file():
        raise FormatError("not a file", path=path)
    return read_image_list(path)


def _without_path(message: str, path: Path) -> str:
    return message.removeprefix(f"{path}: ").removeprefix("cannot be read: ")
