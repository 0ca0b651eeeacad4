"""Chooses the Debian mirror: --mirror, ``IRV2CAFFE_MIRROR``, or the one that apt uses."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from irv2caffe.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_APT = Path("/etc/apt")
_VARIABLE = "IRV2CAFFE_MIRROR"
_WAY_OUT = (
    "give --mirror the URL of a Debian mirror with the suite bullseye; see the list of mirrors on "
    "Debian's web site"
)
_ONE_LINE = re.compile(r"deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)(?:\s+(.*))?$")


def choose_mirror(given: str | None = None, apt: Path = _APT) -> str:
    """Returns the URL of a Debian mirror.

    Args:
        given: URL given by the user; by default the variable ``IRV2CAFFE_MIRROR``.
        apt: apt's configuration folder.

    Returns:
        A URL; empty if apt does not use a Debian mirror, as on Ubuntu. mmdebstrap then uses its
        own default.

    Raises:
        UsageError: not the URL of a mirror.
    """
    given = given or os.environ.get(_VARIABLE)
    if given:
        return check_mirror(given)
    for uri, suite, components in apt_entries(apt):
        # Other archives, and the security archive, do not have the suite.
        is_debian = uri.rstrip("/").endswith("/debian")
        if is_debian and "security" not in suite and "main" in components.split():
            return check_mirror(uri)
    return ""


def known_mirror(given: str | None = None, apt: Path = _APT) -> str:
    """Returns the URL of a Debian mirror like :func:`choose_mirror`, but never an empty one.

    Where apt uses no Debian mirror, the default of mmdebstrap is read from its program.

    Raises:
        UsageError: not the URL of a mirror, or no mirror is known.
    """
    found = choose_mirror(given, apt)
    if found:
        return found
    program = shutil.which("mmdebstrap")
    if program is not None:
        text = Path(program).read_text(encoding="utf-8", errors="replace")
        match = re.search(r"https?://[\w.]+/debian\b(?!-)", text)
        if match:
            return match[0]
    raise UsageError("no Debian mirror is known on this machine", _WAY_OUT)


def check_mirror(url: str) -> str:
    """Returns ``url`` without a final slash, if it is a URL that mmdebstrap accepts."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # raises
    except ValueError as error:
        raise UsageError(f"{url!r} is not the URL of a mirror: {error}", _WAY_OUT) from error
    has_place = bool(parts.hostname) or (parts.scheme in {"file", "copy"} and bool(parts.path))
    if (
        parts.scheme not in {"http", "https", "file", "copy"}
        or not has_place
        or not re.fullmatch(r"[!-~]+", url)
    ):
        raise UsageError(f"{url!r} is not the URL of a mirror", _WAY_OUT)
    return url.rstrip("/")


def apt_entries(apt: Path) -> Iterator[tuple[str, str, str]]:
    """Yields (URI, suite, components) of apt's sources, in both formats of sources.list(5)."""
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
