"""install-caffe and caffe."""

from __future__ import annotations

from pathlib import Path

import click

from irv2caffe import ui


@click.command("install-caffe")
@click.option(
    "--prefix",
    type=click.Path(path_type=Path),
    help="Folder to install into.  [default: user data folder]",
)
@click.option("--mirror", help="Debian mirror to fetch from.  [default: the one apt uses]")
@click.option("--without-pycaffe", is_flag=True, help="Leave pycaffe out; a smaller install.")
@click.option("--force", is_flag=True, help="Install again over an earlier install.")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
def install_caffe_command(
    prefix: Path | None, mirror: str | None, without_pycaffe: bool, force: bool, as_json: bool
) -> None:
    """Install Caffe 1.0 from the Debian 11 archive, without root."""
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
    short_help="Run the Caffe that was found.",
    context_settings={
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
        "help_option_names": ["--help"],
    },
)
@click.option("--which", is_flag=True, help="Say which Caffe is used, and why.")
@click.option("--tool", default="caffe", show_default=True, help="Another program of that Caffe.")
@click.option(
    "--caffe",
    "flag",
    type=click.Path(path_type=Path),
    help="Use this Caffe: its folder or program.",
)
@click.option("--json", "as_json", is_flag=True, help="With --which: as JSON.")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def caffe_command(
    which: bool, tool: str, flag: Path | None, as_json: bool, args: tuple[str, ...]
) -> None:
    """Run the Caffe that was found: train, test, time and its other programs.

    Arguments, signals and the exit code are passed through. Programs for --tool:
    convert_imageset, compute_image_mean, extract_features, python (which imports pycaffe) ...
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
