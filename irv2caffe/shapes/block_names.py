"""Names of blocks and of families of blocks, derived from the names of layers."""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_NUMBER = re.compile(r"(?<=[A-Za-z])\d+$|(?<=\d)[a-z]\d*$")
_SIZE_WORD = re.compile(r"^(\d+x\d+|s\d+|x\d+)$")


def folder_of(names: Sequence[str]) -> str:
    """The longest path that all names start with, up to a ``/``; empty for none."""
    split = [name.split("/") for name in names]
    depth = 0
    while all(len(parts) > depth and parts[depth] == split[0][depth] for parts in split):
        depth += 1
    if len(split) == 1:
        depth -= 1
    return "/".join(split[0][:depth])


def common_folder(names: Sequence[str]) -> str:
    """The first folder of the names, where nearly all names are in it, as exporters do."""
    inside = [name for name in names if "/" in name]
    folder = inside[0].split("/")[0] if inside else ""
    outside = sum(not name.startswith(f"{folder}/") for name in names)
    return f"{folder}/" if folder and outside <= 4 else ""


def common_prefix(names: Sequence[str]) -> str:
    """The common prefix up to a separator: ``res2a`` of ``res2a_branch1`` and ``res2a``."""
    if not names:
        return ""
    prefix = os.path.commonprefix(names)  # noqa: RUF071  # by characters
    if all(name[len(prefix) : len(prefix) + 1] in "/_-." for name in names):
        return prefix
    cut = max(prefix.rfind(separator) for separator in "/_-.")
    return prefix[:cut] if cut > 0 else ""


def majority_prefix(names: Sequence[str]) -> str:
    """The first word of most names: ``resx3`` of ``resx3_conv1 .. shuffle3``; empty for none."""
    words = Counter(re.split("[/_.-]", name, maxsplit=1)[0] for name in names)
    word, times = words.most_common(1)[0]
    return word if times > max(2, len(names) / 2) else ""


def family_of(name: str) -> str:
    """A block's name without its number: ``res2`` of ``res2a``, ``stem`` of ``stem4_3x3``."""
    folder, slash, last = name.rpartition("/")
    words = last.split("_")
    while len(words) > 1 and _SIZE_WORD.match(words[-1]):
        words.pop()
    if len(words) > 1 and words[-1].isdecimal():
        return f"{folder}{slash}{'_'.join(words[:-1])}"
    base = _NUMBER.sub("", words[-1])
    return f"{folder}{slash}{'_'.join([*words[:-1], base])}" if base != words[-1] else ""
