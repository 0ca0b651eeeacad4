"""Console output: results on stdout; messages, errors and progress on stderr.

Everything is made printable first. This is the only module that imports rich.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from irv2caffe.panel import Panel

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Sequence

    from irv2caffe.errors import Irv2CaffeError
    from irv2caffe.panel import Status

_PLAIN_STATUS_S = 30.0
# Control characters except newline and tab, line separators, and marks of the text direction.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"
)
_panel: list[Panel] = []  # the panel on the terminal, if there is one


def printable(text: str) -> str:
    r"""Returns ``text`` with control characters escaped (``\x1b``), except newlines and tabs.

    File names, labels and logs are untrusted: unescaped, they could move the terminal's cursor,
    set its title or reverse the direction of the text.
    """
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def say(message: str) -> None:
    """Prints a message on stderr, above the panel if there is one."""
    if _panel:
        _panel[0].message(printable(message))
        return
    print(printable(message), file=sys.stderr, flush=True)  # noqa: T201


def say_next(*words: object) -> None:
    """Prints on stderr what a user would type next, words of a command of irv2caffe."""
    say(f"next: irv2caffe {shlex.join(map(str, words))}")


def show(message: str) -> None:
    """Prints a line of the result on stdout."""
    print(printable(message), flush=True)  # noqa: T201


def show_json(value: Any) -> None:
    """Prints a result as JSON on stdout; NaN and infinity become null."""
    show(json_text(value))


def json_text(value: Any) -> str:
    """A result as JSON; NaN and infinity become null."""
    return json.dumps(_finite(value), indent=2, allow_nan=False, default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def show_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Container[str] = ()
) -> None:
    """Prints a table on stdout, 200 columns wide if stdout is not a terminal.

    Args:
        headings: of the columns.
        rows: the cells.
        right: headings of the columns to align right.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left")
    for row in rows:
        table.add_row(*(printable(str(cell)) for cell in row))
    width = None if sys.stdout.isatty() else 200
    Console(markup=False, highlight=False, width=width).print(table)


def columns_of_stdout() -> int | None:
    """The width of the terminal that results are shown on; None where it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def show_error(error: Irv2CaffeError) -> None:
    """Prints an error on one line and its hint on the next."""
    say(f"irv2caffe: error: {' '.join(error.message.split())}")
    if error.hint:
        say(f"  hint: {' '.join(error.hint.split())}")


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yields ``update(done, total)``, which shows a progress bar, or lines if not on a terminal.

    Both show the rate and the remaining time, measured from the first call on.
    """
    if not sys.stderr.isatty():
        yield _plain_progress(what)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    pace = _Pace()
    with Progress(*columns, TextColumn("{task.fields[pace]}"), console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None, pace="")
        yield lambda done, total: bar.update(
            task, completed=done, total=total, pace=pace.words(done, total)
        )


_LEAST_PACE_S = 0.001  # shorter times give no useful rate


class _Pace:
    """Rate and remaining time, measured from the first call on."""

    def __init__(self) -> None:
        self._start: tuple[float, int] | None = None

    def words(self, done: int, total: int) -> str:
        """Returns ``850 a second, 0 min 06 s left``, or an empty text if the rate is unknown."""
        now = time.monotonic()
        if self._start is None:
            self._start = (now, done)
        seconds, count = now - self._start[0], done - self._start[1]
        if count <= 0 or seconds < _LEAST_PACE_S:
            return ""
        left = (total - done) * seconds / count
        rate = f"{count / seconds:,.0f} a second"
        return rate if done >= total else f"{rate}, {duration(left)} left"


_PLAIN_EVERY_S = 60.0
_PLAIN_AT_MOST_EVERY_S = 1.0


def _plain_progress(what: str) -> Callable[[int, int], None]:
    """Prints a line at every tenth, at most one per second; every minute; and at the end."""
    shown, shown_at = 0, time.monotonic()
    pace = _Pace()

    def update(done: int, total: int) -> None:
        nonlocal shown, shown_at
        tenth = 10 * done // max(1, total)
        words = pace.words(done, total)
        since = time.monotonic() - shown_at
        is_due = since > _PLAIN_AT_MOST_EVERY_S or done >= total
        if (tenth > shown and is_due) or since > _PLAIN_EVERY_S:
            shown, shown_at = tenth, time.monotonic()
            say(f"{what}: {done:,} of {total:,}{', ' if words else ''}{words}")

    return update


@contextmanager
def status_panel() -> Iterator[Callable[[Status], None]]:
    """Yields ``update(status)``, which redraws a panel, or prints a line per 30 s elsewhere.

    rich would draw it in a thread, which takes much CPU time, and garbles narrower terminals.
    """
    if not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        print_line = _plain_status()
        yield lambda status: print_line(status.line())
        return
    panel = Panel(sys.stderr)
    _panel[:] = [panel]
    try:
        yield panel.show
    finally:
        _panel.clear()
        panel.close()


def _plain_status() -> Callable[[str], None]:
    """Prints at most one line per 30 seconds, to keep logs of weeks readable."""
    not_before = 0.0

    def update(text: str) -> None:
        nonlocal not_before
        now_s = time.monotonic()
        if text and now_s >= not_before:
            not_before = now_s + _PLAIN_STATUS_S
            say(text)

    return update


def duration(seconds: float) -> str:
    """Returns a time in its two largest units: ``3 d 04 h``, ``2 h 05 min``, ``4 min 10 s``."""
    whole = int(seconds)
    if whole >= 86_400:
        return f"{whole // 86_400} d {whole % 86_400 // 3600:02} h"
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 60} min {whole % 60:02} s"


def format_bytes(num_bytes: float) -> str:
    """Returns a size in decimal units: ``24.1 GB``, ``5.61 GB``, ``8.6 kB``, ``512 B``."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:,.{1 if num_bytes >= 10 * unit else 2}f} {name}"
    return f"{num_bytes / 1e3:.1f} kB" if num_bytes >= 1e3 else f"{num_bytes:.0f} B"
