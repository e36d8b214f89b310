"""Help: the usual options, briefly, with ``--help``; all of them in full with ``--help-all``.

A rare option is one that is hidden.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"]}
"""The settings of all commands."""


class Command(TyperCommand):
    """A command whose help is brief unless ``--help-all`` asks for more."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help: of rare options nothing, of others the first sentence; or everything."""
        if ctx.meta.get(_ALL):
            with _shown(self.params):
                super().format_help(ctx, formatter)
        else:
            with _briefly(self.params):
                super().format_help(ctx, formatter)


_ALL = "onnxprune.help_all"


def _is_rare(option: Any) -> bool:
    return bool(getattr(option, "hidden", False))


def _show_all(context: typer.Context, wanted: bool) -> None:
    if wanted:
        context.meta[_ALL] = True
        typer.echo(context.get_help())
        raise typer.Exit


HelpAllOption = Annotated[
    bool,
    typer.Option(
        "--help-all", is_eager=True, callback=_show_all, help="Show all options, and say more.", show_default=False
    ),
]


@contextmanager
def _shown(options: list[Any]) -> Iterator[None]:
    """Nothing is hidden inside."""
    hidden = [option for option in options if _is_rare(option)]
    for option in hidden:
        option.hidden = False
    try:
        yield
    finally:
        for option in hidden:
            option.hidden = True


@contextmanager
def _briefly(options: list[Any]) -> Iterator[None]:
    """Every option says only one sentence inside, if there are others to be asked for."""
    texts = [(option, option.help) for option in options if getattr(option, "help", None)]
    if any(_is_rare(option) for option in options):
        for option, text in texts:
            option.help = text.partition(". ")[0].removesuffix(".") + "."
    try:
        yield
    finally:
        for option, text in texts:
            option.help = text
