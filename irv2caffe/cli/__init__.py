"""The command line: one short function per command, in workflow order: parse, one call, render."""

from irv2caffe.cli.main import cli, run

__all__ = ["cli", "run"]
