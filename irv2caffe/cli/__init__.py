"""The command line: one function per command, which parses, makes one library call and prints.

May import every other package; no other package imports it.
"""

from irv2caffe.cli.main import cli, run

__all__ = ["cli", "run"]
