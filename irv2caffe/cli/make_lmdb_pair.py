"""make-lmdb with --val-fraction: two databases from one source."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from irv2caffe import ui
from irv2caffe.cli.make_lmdb_output import pair_lines

if TYPE_CHECKING:
    from pathlib import Path

    from irv2caffe.data.build.make_lmdb import BuildOptions, SizeEstimate
    from irv2caffe.data.build.make_pair import Build, PairReport
    from irv2caffe.data.sources import Source
    from irv2caffe.data.split.split import Split


@dataclass(frozen=True)
class How:
    """How databases are built.

    Attributes:
        backend: the program that writes them.
        flag: value of --caffe.
        force: replace existing ones.
        resume: continue unfinished ones.
    """

    backend: str
    flag: Path | None
    force: bool
    resume: bool


@dataclass(frozen=True)
class Division:
    """What the user asked for.

    Attributes:
        val_fraction: share of every class that is set aside.
        split: value of --split.
        out: the training database.
        val_out: the validation database; None takes the default.
    """

    val_fraction: float
    split: str | None
    out: Path
    val_out: Path | None

    @property
    def outs(self) -> tuple[Path, Path]:
        """The training and the validation database."""
        from irv2caffe.data.build.make_pair import default_val_out

        return self.out, self.val_out or default_val_out(self.out)


def plan_pair(division: Division, images: Source, options: BuildOptions, *, as_json: bool) -> None:
    """Shows what would be built."""
    from irv2caffe.data.build.make_pair import estimate_pair

    parts = _divide(division, images, options)
    train, val = estimate_pair(parts, *division.outs, options)
    if as_json:
        told = {
            "train": asdict(train),
            "val": asdict(val),
            "val_out": division.outs[1],
            "num_duplicates": parts.num_duplicates,
            "notes": parts.notes,
            "findings": parts.findings,
        }
        ui.show_json(told)
        return
    for line in pair_lines(parts, train, val, division.outs):
        ui.show(line)
    for finding in parts.findings:
        ui.show(f"finding: {finding}")


def build_pair(
    division: Division,
    images: Source,
    options: BuildOptions,
    build: Build,
    how: How,
) -> PairReport:
    """Builds both databases; ``build`` builds one of them."""
    from irv2caffe.data.build.make_pair import check_pair, make_pair

    out, val_out = division.outs
    check_pair(images, out, val_out, force=how.force)
    parts = _divide(division, images, options)

    def announce(train: SizeEstimate, val: SizeEstimate) -> None:
        for line in pair_lines(parts, train, val, division.outs):
            ui.say(line)

    return make_pair(
        parts,
        out,
        val_out,
        options,
        build,
        backend=how.backend,
        force=how.force,
        resume=how.resume,
        announce=announce,
    )


def _divide(division: Division, images: Source, options: BuildOptions) -> Split:
    from irv2caffe.data.sources.own_validation import notes_on_neighbours, refuse_own_validation
    from irv2caffe.data.split.split import split_source

    refuse_own_validation(images, division.split)
    for note in notes_on_neighbours(images):
        ui.say(f"note: {note}")
    with ui.progress("images compared") as progress:
        return split_source(images, division.val_fraction, options.seed, progress)
