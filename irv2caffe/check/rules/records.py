"""Records that are not what Caffe takes them for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.check.arithmetic import source_of
from irv2caffe.check.finding import ERROR, WARNING, Hit, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.check.evidence import Evidence, PhaseNet


@rule("records-broken", ERROR, "net", "data_transformer.cpp, Transform; util/io.cpp")
def records_broken(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """Records that hold no image."""
    for layer in net.of_type("Data"):
        facts = evidence.databases.get(source_of(layer))
        if facts is None or not facts.num_broken:
            continue
        of = f"{facts.num_broken:,} of the {facts.num_looked_at:,} records that were looked at"
        yield Hit(
            f"{source_of(layer)}: {of} hold no image; record {facts.broken}",
            "Caffe stops when it comes to such a file (Could not decode datum), hours into the "
            "run; of a raw record that is too short it reads what lies behind it in memory",
            f"irv2caffe inspect-lmdb {source_of(layer)} --all lists them; build it again",
            layer.at("data_param", "source"),
        )


@rule("height-first", WARNING, "net", "data_transformer.cpp, InferBlobShape")
def height_first(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """Records of height x width x channels, as OpenCV and PIL have images in memory."""
    for layer in net.of_type("Data"):
        facts = evidence.databases.get(source_of(layer))
        if facts is None or not facts.height_first:
            continue
        sides = f"{facts.channels} channels, height {facts.height}, width {facts.width}"
        crop = layer.message.transform_param.crop_size
        yield Hit(
            f"{source_of(layer)} says {sides}: height x width x channels",
            "Caffe reads channels x height x width"
            + (": it stops, since the crop does not fit" if crop > (facts.width or 0) else ""),
            "transpose(2, 0, 1) before the records are written, or build it with make-lmdb",
            layer.at("data_param", "source"),
            ERROR if crop > (facts.width or 0) else WARNING,
        )
