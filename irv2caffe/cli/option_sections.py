"""Click classes for commands that list their options under several headings in ``--help``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

F = TypeVar("F", bound=Callable[..., Any])


class SectionOption(click.Option):
    """An option with the heading under which ``--help`` lists it."""

    def __init__(self, *args: Any, section: str = "Options", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The values that the shell may complete."""
        from irv2caffe.cli.completion import values

        found = values(self.name, self.metavar, incomplete)
        return super().shell_complete(ctx, incomplete) if found is None else found


class SectionCommand(click.Command):
    """A command whose help lists the options by section, in order of their first appearance."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes one list of options per section; ``Other`` comes last."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                sections.setdefault(getattr(parameter, "section", "Other"), []).append(record)
        for heading, records in sorted(sections.items(), key=lambda item: item[0] == "Other"):
            with formatter.section(heading):
                formatter.write_dl(records)


def section(heading: str) -> Callable[..., Callable[[F], F]]:
    """Returns a decorator like ``click.option`` for options listed under ``heading``."""
    return functools.partial(click.option, cls=SectionOption, section=heading)


def with_options(options: Sequence[Callable[[F], F]]) -> Callable[[F], F]:
    """Returns a decorator that applies several option decorators; help lists them in order."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate
