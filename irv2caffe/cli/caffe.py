"""The commands install-caffe and caffe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from irv2caffe import ui
from irv2caffe.errors import UsageError


@click.command("install-caffe", short_help="Install Caffe 1.0, for CPUs or GPUs, without root.")
@click.option(
    "--prefix",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder to install into.  [default: ~/.local/share/irv2caffe/caffe-1.0, for GPUs "
    "caffe-1.0-cuda beside it]",
)
@click.option(
    "--mirror",
    metavar="URL",
    help="Debian mirror to download from.  [default: $IRV2CAFFE_MIRROR, else the one apt uses]",
)
@click.option(
    "--without-pycaffe", is_flag=True, help="Leave out the Python interface, for a smaller install."
)
@click.option("--force", is_flag=True, help="Replace an earlier install.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option(
    "--cuda",
    type=click.Choice(["auto", "12", "13"]),
    metavar="[12|13]",
    is_flag=False,
    flag_value="auto",
    help="Build Caffe for NVIDIA GPUs with CUDA 12.4 (driver 525 or newer, compute capability 5.0 "
    "to 9.0) or 13.0 (driver 580 or newer, 7.5 to 12.1).  [default: 12.4 if it supports the GPUs]",
)
@click.option(
    "--arch",
    metavar="CC,...",
    help="Compute capabilities to compile for, such as 8.0,9.0. For newer GPUs, the driver (550 or "
    "newer) compiles at their first start.  [default: those of this machine's GPUs]",
)
@click.option(
    "--cudnn/--no-cudnn",
    default=None,
    help="Compute convolutions with cuDNN 9, which takes 0.5 GB (CUDA 13) or 1 GB more.  "
    "[default: --cudnn]",
)
@click.option("--dry-run", is_flag=True, help="With --cuda: show size, time and license, and exit.")
@click.option(
    "--jobs", type=click.IntRange(min=1), metavar="N", help="Compilers that run at a time."
)
@click.option(
    "--build-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for downloads and compiled files, which an interrupted build finds again.  "
    "[default: ~/.cache/irv2caffe/cuda]",
)
@click.option("--keep-build", is_flag=True, help="Keep that folder after success.")
@click.option(
    "--second-mirror", metavar="URL", help="Debian mirror or archive for what --mirror lacks."
)
def install_caffe_command(
    prefix: Path | None,
    mirror: str | None,
    without_pycaffe: bool,
    force: bool,
    as_json: bool,
    cuda: str | None,
    **build: Any,
) -> None:
    """Install Caffe 1.0 from the Debian 11 archive; needs no root.

    With --cuda, Caffe's source is compiled for NVIDIA GPUs. The compilers, CUDA and all libraries
    are downloaded; neither a compiler nor the CUDA toolkit is needed on this machine.
    """
    if cuda is not None:
        from irv2caffe.cli.install_cuda import install_cuda

        pycaffe = not without_pycaffe
        install_cuda(cuda, prefix, mirror, pycaffe=pycaffe, force=force, as_json=as_json, **build)
        return
    given = [name for name, value in build.items() if value]
    if given:
        raise UsageError(f"--{given[0].replace('_', '-')} goes with --cuda only")
    from irv2caffe.caffe.install import install_caffe

    report = install_caffe(
        prefix, mirror=mirror, pycaffe=not without_pycaffe, force=force, say=ui.say
    )
    if as_json:
        ui.show_json(report.as_dict())
    else:
        ui.show(report.summary())


@click.command(
    "caffe",
    short_help="Run a Caffe program.",
    context_settings={
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
        "help_option_names": ["--help"],
    },
)
@click.option("--which", is_flag=True, help="Show which Caffe is used and why, and exit.")
@click.option(
    "--tool", metavar="NAME", default="caffe", show_default=True, help="Caffe program to run."
)
@click.option(
    "--caffe",
    "flag",
    type=click.Path(path_type=Path),
    help="Caffe to use: its folder or program.  [default: $CAFFE_ROOT, else the caffe on PATH, "
    "else the one from install-caffe]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result of --which as JSON.")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def caffe_command(
    which: bool, tool: str, flag: Path | None, as_json: bool, args: tuple[str, ...]
) -> None:
    """Run the caffe program (train, test, time, device_query), or another Caffe program.

    ARGS, signals and the exit code are passed through. With -gpu among ARGS, the Caffe from
    install-caffe --cuda runs if the other one cannot use GPUs. Programs for --tool include
    convert_imageset, compute_image_mean, extract_features, and python, an interpreter that can
    import caffe.
    """
    from irv2caffe.caffe.passthrough import describe, exec_tool, find_for

    found = find_for(args, flag)
    if not which:
        exec_tool(found, tool, args)
    elif as_json:
        ui.show_json(describe(found, flag).as_dict())
    else:
        ui.show(describe(found, flag).text())
