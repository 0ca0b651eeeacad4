"""The Debian mirror to fetch from: the flag, the environment, or the one the host's apt uses."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from irv2caffe.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_APT = Path("/etc/apt")
_VARIABLE = "IRV2CAFFE_MIRROR"
_WAY_OUT = (
    "--mirror URL names a Debian mirror that has the suite bullseye; they are listed on Debian's "
    "web site under 'mirror'"
)
_ONE_LINE = re.compile(r"deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)(?:\s+(.*))?$")


def choose_mirror(told: str | None = None, apt: Path = _APT) -> str:
    """The URL of a Debian mirror.

    Args:
        told: by the user; else the environment variable ``IRV2CAFFE_MIRROR``.
        apt: apt's configuration folder.

    Returns:
        A URL; empty where apt uses no mirror of Debian itself (Ubuntu): mmdebstrap then takes
        its own default.

    Raises:
        UsageError: what was told is no URL of a mirror.
    """
    told = told or os.environ.get(_VARIABLE)
    if told:
        return check_mirror(told)
    for uri, suite, components in apt_entries(apt):
        # Third parties and the security archive lie elsewhere or have other suites.
        is_debian = uri.rstrip("/").endswith("/debian")
        if is_debian and "security" not in suite and "main" in components.split():
            return check_mirror(uri)
    return ""


def check_mirror(url: str) -> str:
    """``url``, if it can be handed to mmdebstrap as one argument and nothing else."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # raises
    except ValueError as error:
        raise UsageError(f"{url!r} is no address of a mirror: {error}", _WAY_OUT) from error
    has_place = bool(parts.hostname) or (parts.scheme in {"file", "copy"} and bool(parts.path))
    if (
        parts.scheme not in {"http", "https", "file", "copy"}
        or not has_place
        or not re.fullmatch(r"[!-~]+", url)
    ):
        raise UsageError(f"{url!r} is no address of a mirror", _WAY_OUT)
    return url.rstrip("/")


def apt_entries(apt: Path) -> Iterator[tuple[str, str, str]]:
    """(URI, suite, components) of apt's sources, in both of its formats (sources.list(5))."""
    files = [apt / "sources.list"]
    if (apt / "sources.list.d").is_dir():
        files += sorted((apt / "sources.list.d").iterdir())
    for path in files:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if path.suffix == ".sources":
            yield from _deb822(text)
        elif path.suffix == ".list":
            yield from _one_line(text)


def _one_line(text: str) -> Iterator[tuple[str, str, str]]:
    for line in text.splitlines():
        match = _ONE_LINE.match(line.split("#")[0].strip())
        if match:
            yield match[1], match[2], match[3] or ""


def _deb822(text: str) -> Iterator[tuple[str, str, str]]:
    for paragraph in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in paragraph.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace():
                fields[name] = f"{fields.get(name, '')} {line.strip()}"
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if fields.get("enabled", "yes").lower() == "no" or "deb" not in fields.get("types", ""):
            continue
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield uri, suite, fields.get("components", "")
