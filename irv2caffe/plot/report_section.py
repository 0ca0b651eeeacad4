"""Sections of the report that other rooms write: headings, and cards with rows of text."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from irv2caffe.plot.style import without_controls

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Command(str):
    """A text to type."""

    __slots__ = ()


Rows = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Card:
    """A statement with what belongs to it.

    Attributes:
        kind: a word before the title, which is a class of the style sheet.
        title: the statement.
        rows: headings, and the texts beside each.
    """

    kind: str
    title: str
    rows: Rows


@dataclass(frozen=True)
class Section:
    """A part of the report about one run.

    Attributes:
        heading: of all sections of this kind, which stand together.
        name: of the run.
        cards: its statements.
        rows: further headings and texts, below the cards.
        empty: shown if there are no cards.
    """

    heading: str
    name: str
    cards: tuple[Card, ...] = ()
    rows: Rows = ()
    empty: str = "nothing found"


def sections_html(sections: Sequence[Section]) -> str:
    """The sections as HTML, whose texts are escaped."""
    parts = []
    for heading in dict.fromkeys(section.heading for section in sections):
        parts.append(f"<h2>{_text(heading)}</h2>")
        for section in sections:
            if section.heading == heading:
                parts += _section(section)
    return "".join(parts)


def _section(section: Section) -> Iterable[str]:
    yield f"<h3>{_text(section.name)}</h3>"
    for card in section.cards:
        kind = "".join(letter for letter in card.kind if letter.isalpha())
        yield f'<details class="card {kind}" open><summary><span class="kind">{kind}</span> '
        yield f"{_text(card.title)}</summary>{_table(card.rows)}</details>"
    if not section.cards:
        yield f"<p>{_text(section.empty)}</p>"
    if section.rows:
        yield _table(section.rows)


def _table(rows: Rows) -> str:
    lines = (
        f"<tr><th>{_text(name)}</th><td>{''.join(map(_line, texts))}</td></tr>"
        for name, texts in rows
    )
    return f'<table class="rows">{"".join(lines)}</table>'


def _line(text: str) -> str:
    tag = "code" if isinstance(text, Command) else "span"
    return f"<div><{tag}>{_text(text)}</{tag}></div>"


def _text(text: str) -> str:
    return escape(without_controls(text))
