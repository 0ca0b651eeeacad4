"""Records without a readable image, or with an image in another layout than Caffe's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.check.finding import ERROR, WARNING, Hit, Hits
from irv2caffe.check.registry import net_rule

if TYPE_CHECKING:
    from irv2caffe.check.evidence import NetEvidence


@net_rule("records-broken", ERROR, "data_transformer.cpp, Transform; util/io.cpp")
def records_broken(evidence: NetEvidence) -> Hits:
    """Records without a readable image."""
    for layer in evidence.net.of_type("Data"):
        facts = evidence.facts_of(layer)
        if facts is None or not facts.num_broken:
            continue
        of = f"{facts.num_broken:,} of the {facts.num_looked_at:,} records that were looked at"
        yield Hit(
            what=f"{layer.source}: {of} hold no image; record {facts.broken}",
            why="Caffe stops at such a record (Could not decode datum), maybe hours into the "
            "run; for a raw record that is too short it reads memory behind it",
            fix=f"irv2caffe inspect-lmdb {layer.source} --all lists them; build it again",
            at=layer.at("data_param", "source"),
        )


@net_rule("height-first", WARNING, "data_transformer.cpp, InferBlobShape")
def height_first(evidence: NetEvidence) -> Hits:
    """Records of height x width x channels, which is the layout of OpenCV and PIL."""
    for layer in evidence.net.of_type("Data"):
        facts = evidence.facts_of(layer)
        if facts is None or not facts.height_first:
            continue
        sides = f"{facts.channels} channels, height {facts.height}, width {facts.width}"
        too_large = layer.message.transform_param.crop_size > (facts.width or 0)
        yield Hit(
            what=f"{layer.source} has {sides}: height x width x channels",
            why="Caffe reads channels x height x width"
            + (": it stops, since the crop does not fit" if too_large else ""),
            fix="transpose(2, 0, 1) before the records are written, or build it with make-lmdb",
            at=layer.at("data_param", "source"),
            severity=ERROR if too_large else WARNING,
        )
