"""The commands install-caffe and caffe."""

from __future__ import annotations

from pathlib import Path

import click

from irv2caffe import ui


@click.command("install-caffe", short_help="Install Caffe 1.0 (CPU only), without root.")
@click.option(
    "--prefix",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder to install into.  [default: ~/.local/share/irv2caffe/caffe-1.0]",
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
def install_caffe_command(
    prefix: Path | None, mirror: str | None, without_pycaffe: bool, force: bool, as_json: bool
) -> None:
    """Install Caffe 1.0 (CPU only) from the Debian 11 archive; needs no root."""
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

    ARGS, signals and the exit code are passed through. Programs for --tool include
    convert_imageset, compute_image_mean, extract_features, and python, an interpreter that can
    import caffe.
    """
    from irv2caffe.caffe.find import find_caffe
    from irv2caffe.caffe.passthrough import describe, exec_tool

    found = find_caffe(flag)
    if not which:
        exec_tool(found, tool, args)
    elif as_json:
        ui.show_json(describe(found, flag).as_dict())
    else:
        ui.show(describe(found, flag).text())
