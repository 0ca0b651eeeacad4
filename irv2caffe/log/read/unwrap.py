"""Removes what terminals, containers and web pages add to the lines of a log.

Additions that cannot be part of a message (colours, a container's JSON, quote marks, HTML line
breaks and blanks) are removed from every line. Those that could be part of one (backslashes, HTML
entities) are removed only from messages that cannot be parsed otherwise.
"""

from __future__ import annotations

import html
import json
import re
from typing import Any

_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]{0,32}[ -/]{0,4}[@-~]|\][^\x07\x1b]{0,999}(?:\x07|\x1b\\)?|[@-Z\\-_])"
)
_TAGS = re.compile(
    r"(?:\s{0,99}</?(?:br|p|div|pre|code|li|td|tr|span|font|samp|tt)(?:\s[^<>]{0,200})?/?>){1,20}\Z",
    re.IGNORECASE,
)
_QUOTES = re.compile(r"(?:\s?> ?){1,20}")
# The keys of the line in the JSON of container loggers.
_KEYS = ("log", "message", "msg", "textPayload")

# A colour whose escape character is missing or written as text.
_COLOUR = re.compile(
    r"(?:\^\[|\\(?:033|x1b|e|u001b))?\[(?:\d{1,3}(?:;\d{1,3}){0,4})?[mK]", re.ASCII
)
_MARKDOWN = re.compile(r"\\([\\`*_{}\[\]()#+.!|~>=-])")
_JSON_END = re.compile(r"""(?:\\[nr]){0,9}["']?,?\s{0,99}\Z""")
_SUSPECT = re.compile(r"""[\\&\["',]|\^\[""")


def unwrap(line: str) -> str:
    """A line without additions that cannot be part of a message.

    Args:
        line: without its end.
    """
    if line.startswith('{"'):
        line = _json_line(line)
    if "\x1b" in line:
        line = _ESCAPES.sub("", line)
    if "\xa0" in line or "&nbsp;" in line:  # blanks in web pages
        line = line.replace("&nbsp;", " ").replace("\xa0", " ")
    if line.endswith(">"):
        line = _TAGS.sub("", line)
    if line.startswith((">", " >")):
        line = line[_QUOTES.match(line).end() :]  # type: ignore[union-attr]
    return line


def unescape(message: str) -> str:
    """A message without additions that might also be part of one; for unknown messages only."""
    if _SUSPECT.search(message) is None:
        return message
    message = _MARKDOWN.sub(r"\1", _COLOUR.sub("", html.unescape(message)))
    return _JSON_END.sub("", _JSON_END.sub("", message), count=1)


def _json_line(line: str) -> str:
    try:
        entry: Any = json.loads(line)
    except (ValueError, RecursionError):
        return line
    if not isinstance(entry, dict):
        return line
    found = next((entry[key] for key in _KEYS if isinstance(entry.get(key), str)), line)
    return str(found).strip("\r\n")
