"""The command deploy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irv2caffe import ui
from irv2caffe.cli.completion import models_and_runs
from irv2caffe.cli.model_options import (
    ENGINE_OPTIONS,
    MODEL_OPTIONS,
    preprocessing_options,
)
from irv2caffe.cli.option_sections import SectionCommand, section, with_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.deploy.options import Bundle

_PATH = click.Path(path_type=Path)
_NET = (
    section("Net options")(
        "--no-fold", is_flag=True, help="Leave BatchNorm, Scale and factors of sums."
    ),
    section("Net options")(
        "--average-pool",
        type=click.Choice(["tf", "caffe"]),
        default="tf",
        show_default=True,
        help="caffe: leave out the border correction of TF-exact average pools, for programs that "
        "cannot read it; what that costs is measured.",
    ),
    section("Net options")("--onnx", is_flag=True, help="Write net.onnx, too."),
)
_IMAGES = (
    section("Image options")(
        "--images",
        type=_PATH,
        help="Real images to compare and calibrate with: a folder or a database; else the "
        "validation database of the training.",
    ),
    section("Image options")(
        "--check",
        "num_checked",
        type=click.IntRange(1, 1000),
        default=20,
        show_default=True,
        metavar="N",
        help="Run both nets on N images.",
    ),
    section("Image options")(
        "--samples",
        "num_samples",
        type=click.IntRange(min=0),
        default=100,
        show_default=True,
        metavar="N",
        help="Write N preprocessed images, for INT8 calibration.",
    ),
    section("Image options")(
        "--sample-format",
        type=click.Choice(["npy", "bin"]),
        default="npy",
        show_default=True,
        help="bin: float32 values without a header.",
    ),
)


@click.command("deploy", cls=SectionCommand, short_help="Make the files that a device needs.")
@click.argument("source", type=_PATH, metavar="MODEL_OR_RUN", shell_complete=models_and_runs)
@section("Output options")("--out", type=_PATH, required=True, help="The folder to write.")
@section("Output options")("--force", is_flag=True, help="Replace an existing bundle.")
@section("Output options")("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@with_options((*_NET, *_IMAGES, *MODEL_OPTIONS, *ENGINE_OPTIONS))
def deploy_command(
    source: Path,
    out: Path,
    force: bool,
    as_json: bool,
    net: Path | None,
    labels: Path | None,
    snapshot: str,
    no_fold: bool,
    images: Path | None,
    **options: Any,
) -> None:
    """Make the files that a device needs of a trained net: a bundle.

    The net in it is simpler: BatchNorm, Scale and the factors of residual sums are part of the
    weights; Dropout, losses and fillers are gone. Beside it are class names, preprocessing as
    numbers and as a sentence, preprocessed images for INT8 calibration, examples for pycaffe and
    OpenCV, and a README. Both nets run on real images first; a bundle whose net differs is not
    written.

    MODEL_OR_RUN is a run folder or a .caffemodel, of any net that classifies images.
    """
    from irv2caffe.atomic import refuse_existing
    from irv2caffe.deploy.make_bundle import make_bundle, refuse_other
    from irv2caffe.deploy.options import BundleOptions
    from irv2caffe.deploy.samples import images_of
    from irv2caffe.inference.images import read_images
    from irv2caffe.inference.opening import open_model

    if force:
        refuse_other(out)
    else:
        refuse_existing(out)
    override = preprocessing_options(options)
    model = open_model(source, net=net, labels=labels, snapshot=snapshot, override=override)
    found = read_images(images or images_of(model), model)
    with ui.progress("checking") as progress:
        bundle = make_bundle(
            model,
            found,
            out,
            BundleOptions(fold=not no_fold, **options),
            force=force,
            progress=progress,
        )
    if as_json:
        ui.show_json(bundle.as_dict())
        return
    for line in _report(bundle):
        ui.show(line)
    for note in bundle.notes:
        ui.say(note)


def _report(bundle: Bundle) -> Iterator[str]:
    """What was made, and how it was checked."""
    size = ui.format_bytes(sum(bundle.files.values()))
    before, after = bundle.num_layers
    yield f"{bundle.folder}: {before:,} layers became {after:,}, {size}"
    yield f"checked on {bundle.check.num_images} image(s), {bundle.runner}: {bundle.check.text()}"
    if bundle.average_pool_cost is not None:
        yield f"Caffe's average pool costs: {bundle.average_pool_cost.text()}"
    for program, check in bundle.onnx.items():
        yield f"net.onnx in {program}: {check.text()}"
    for name, file_size in bundle.files.items():
        yield f"  {name}  {ui.format_bytes(file_size)}"
    yield f"how to use it: {bundle.folder / 'README.md'}"
