"""What the names of layers say: which block they are of, and which family a block is of."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_INDEX = re.compile(r"(?<=[A-Za-z])\d+$|(?<=\d)[a-z]\d*$")
_DESCRIPTION = re.compile(r"^(\d+x\d+|s\d+|x\d+)$")


def folder_of(names: Sequence[str]) -> str:
    """The folder that all names stand in, or that is itself one of them; empty for none."""
    split = [name.split("/") for name in names]
    depth = 0
    while all(len(parts) > depth and parts[depth] == split[0][depth] for parts in split):
        depth += 1
    if len(split) == 1:
        depth -= 1
    return "/".join(split[0][:depth])


def common_folder(names: Sequence[str]) -> str:
    """What many exporters put before every name."""
    inside = [name for name in names if "/" in name]
    folder = inside[0].split("/")[0] if inside else ""
    outside = sum(not name.startswith(f"{folder}/") for name in names)
    return f"{folder}/" if folder and outside <= 4 else ""


def shared(names: Sequence[str]) -> str:
    """What names have in common up to a boundary: ``res2a`` of ``res2a_branch1`` and ``res2a``."""
    if not names:
        return ""
    shared = names[0]
    for name in names[1:]:
        while not name.startswith(shared):
            shared = shared[:-1]
    if all(len(name) == len(shared) or name[len(shared)] in "/_-." for name in names):
        return shared
    cut = max(shared.rfind(mark) for mark in "/_-.")
    return shared[:cut] if cut > 0 else ""


def of_most(names: Sequence[str]) -> str:
    """The first word that most names have in common: ``resx3`` of ``resx3_conv1 .. shuffle3``."""
    words = Counter(re.split("[/_.-]", name, maxsplit=1)[0] for name in names)
    word, times = words.most_common(1)[0]
    return word if times > max(2, len(names) / 2) else ""


def family_of(name: str) -> str:
    """A block's name without what numbers it: ``res2`` of ``res2a``, ``stem`` of ``stem4_3x3``."""
    folder, slash, last = name.rpartition("/")
    words = last.split("_")
    while len(words) > 1 and _DESCRIPTION.match(words[-1]):
        words.pop()
    if len(words) > 1 and words[-1].isdecimal():
        return f"{folder}{slash}{'_'.join(words[:-1])}"
    base = _INDEX.sub("", words[-1])
    return f"{folder}{slash}{'_'.join([*words[:-1], base])}" if base != words[-1] else ""
