"""Everything that can be said of a run before it starts: files, databases, and what rules find."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import irv2caffe.check.rules  # noqa: F401  registers the rules
from irv2caffe.check.arithmetic import summary
from irv2caffe.check.finding import Finding, Hit, Severity
from irv2caffe.check.inputs import Claims, DatabaseFacts
from irv2caffe.check.nets import gather
from irv2caffe.check.read import read
from irv2caffe.check.registry import RULES, findings
from irv2caffe.data.inspect.database import read_facts
from irv2caffe.data.inspect.source_facts import MAX_LIST_BYTES, list_facts
from irv2caffe.errors import FormatError, Irv2CaffeError, UsageError, did_you_mean
from irv2caffe.proto import messages
from irv2caffe.proto.binary import read_binary

if TYPE_CHECKING:
    from collections.abc import Mapping

    from irv2caffe.check.evidence import Evidence, Layer
    from irv2caffe.check.files import Reading
    from irv2caffe.check.inputs import Flavor
    from irv2caffe.data.inspect.source_facts import SourceFacts


@dataclass(frozen=True)
class CheckOptions:
    """What the user adds to the files.

    Attributes:
        train_lmdb: stands for what TRAIN reads.
        val_lmdb: stands for what TEST reads.
        weights: the .caffemodel that the run starts from.
        flavor: whose Caffe will train.
        num_gpus: that will train; 0 takes what a header of ours says, else one device.
        epochs: the length the run should have.
        lr_decay_epochs: epochs between two steps of the learning rate.
        num_train: training images; instead of what the database says.
        num_val: validation images; instead of what the database says.
        ignore: names of rules to leave out.
        facts: of databases that were read already, by their folder, or why they could not be.
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
    facts: Mapping[Path, SourceFacts | Irv2CaffeError] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        kind: ``solver`` or ``net``.
        files: that were read, the given one first.
        summary: the run in a line or two.
        findings: worst first.
        databases: facts by source.
    """

    kind: str
    files: tuple[str, ...]
    summary: tuple[str, ...]
    findings: tuple[Finding, ...]
    databases: Mapping[str, DatabaseFacts] = field(default_factory=dict)

    @property
    def worst(self) -> Severity | None:
        """The highest severity, or None where nothing was found."""
        return max((finding.severity for finding in self.findings), default=None)

    def count(self, severity: Severity) -> int:
        """Findings of one severity."""
        return sum(finding.severity is severity for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "kind": self.kind,
            "files": list(self.files),
            "summary": list(self.summary),
            "databases": {name: _facts_for_json(each) for name, each in self.databases.items()},
            "counts": {each.label: self.count(each) for each in reversed(Severity)},
            "findings": [finding.as_dict() for finding in self.findings],
        }


def _facts_for_json(facts: DatabaseFacts) -> dict[str, Any]:
    values = dict(vars(facts))
    return {**values, "class_names": len(values["class_names"]) or None}


def check(path: Path, options: CheckOptions | None = None) -> Report:
    """Looks at a solver with its nets, or at a net, and at the databases they read.

    Args:
        path: a prototxt.
        options: what is not in the files.

    Raises:
        MissingInputError: a file or database that was named is not there.
        FormatError: a file that is not what it should be; says where.
        UsageError: no rule of a name to ignore.
    """
    options = options or CheckOptions()
    rules = [rule for rule in RULES.values() if rule.name not in _known(options.ignore)]
    reading = read(path)
    claims = _claims(options)
    databases = _databases(reading, gather(reading, claims=claims), options)
    evidence = gather(reading, databases, claims)
    names = [] if reading.solver is None else [reading.solver.name]
    names += [net.file.name for net in reading.nets]
    return Report(
        kind="net" if reading.solver is None else "solver",
        files=tuple(dict.fromkeys(names)),
        summary=tuple(summary(evidence)),
        findings=tuple(findings(evidence, rules)),
        databases=databases,
    )


def _known(names: frozenset[str]) -> frozenset[str]:
    for name in sorted(names):
        if name not in RULES:
            hint = did_you_mean(name, RULES) or "check --list-rules names them"
            raise UsageError(f"no rule {name!r}", hint)
    return names


def _claims(options: CheckOptions) -> Claims:
    return Claims(
        flavor=options.flavor,
        num_gpus=options.num_gpus,
        epochs=options.epochs,
        lr_decay_epochs=options.lr_decay_epochs,
        num_train=options.num_train,
        num_val=options.num_val,
        weights=None if options.weights is None else _weights(options.weights),
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
    reading: Reading, evidence: Evidence, options: CheckOptions
) -> dict[str, DatabaseFacts]:
    """Facts of what the nets read, by the source as written.

    A database that the user names must be readable; one that only the net names may be anything,
    and what is wrong with it is a finding.
    """
    told = {"TRAIN": options.train_lmdb, "TEST": options.val_lmdb}
    places: dict[str, tuple[Layer, Path]] = {}
    for net in evidence.nets:
        for layer in net.data_layers:
            source = layer.source
            instead = told.get(net.phase) if layer.type == "Data" else None
            path = instead or reading.paths.get(source)
            if path is None or (not instead and source in places):
                continue
            if instead or _can_look(layer.type, path):
                places[source] = (layer, path)
    found: dict[str, DatabaseFacts] = {}
    named = [path for path in told.values() if path is not None]
    looked_at = [path for layer, path in places.values() if layer.type == "Data"]
    read = _read([*named, *looked_at], options)
    for path in named:
        _facts(read[path])  # or raises why there are none
    for source, (layer, path) in places.items():
        try:
            found[source] = _facts(read[path] if layer.type == "Data" else _list(path))
        except Irv2CaffeError as error:
            hit = Hit(
                what=f"{source} cannot be read: {_without_path(error.message, path)}",
                why="Caffe stops when it opens or reads it",
                fix=error.hint or "build it again",
                at=layer.at_data("source"),
            )
            reading.troubles.append(("data-unreadable", hit))
    return found


def _can_look(layer_type: str, path: Path) -> bool:
    """Databases, lists of images that are not too long, and what should be a file and is none."""
    if layer_type == "Data" or not path.is_file():
        return True
    return layer_type == "ImageData" and path.stat().st_size < MAX_LIST_BYTES


def _list(path: Path) -> SourceFacts | Irv2CaffeError:
    return list_facts(path) if path.is_file() else FormatError("not a file", path=path)


def _read(folders: list[Path], options: CheckOptions) -> dict[Path, SourceFacts | Irv2CaffeError]:
    """Facts of databases, those that are known already among them."""
    known = {Path(os.path.realpath(path)): facts for path, facts in options.facts.items()}
    found = {path: known.get(Path(os.path.realpath(path))) for path in folders}
    unknown = read_facts(path for path, facts in found.items() if facts is None)
    return {path: facts or unknown[path] for path, facts in found.items()}


def _facts(facts: SourceFacts | Irv2CaffeError) -> DatabaseFacts:
    if isinstance(facts, Irv2CaffeError):
        raise facts
    return DatabaseFacts(**vars(facts))


def _without_path(message: str, path: Path) -> str:
    message = message.removeprefix(f"{path}: ").removeprefix(f"{os.fspath(path)}: ")
    return message.removeprefix("cannot be read: ")
