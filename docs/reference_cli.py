"""Writes docs/reference/cli.md from the commands and their options: ``python docs/reference_cli.py``.

The page cannot drift from the code: tests/test_docs.py compares them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import EnumMeta
from pathlib import Path
from typing import Any

import typer

from onnxprune.cli.app import app

TARGET = Path(__file__).parent / "reference" / "cli.md"
_INTRODUCTION = """\
# Commands and options

Written by `python docs/reference_cli.py` from the options; do not edit.

`onnxprune COMMAND -h` shows the common options of a command, `--help-all` the rare ones, too. They are all here; rare
ones are marked. Exit codes: 0 done, 1 budget not met or certificate not passed, 2 wrong usage or unreadable input.
"""
# What typer adds to every command, and what is said above.
_EVERYWHERE = {"help", "help_all", "install_completion", "show_completion"}


def text(said: str | None) -> str:
    """What the command line says, as it goes into a cell of a table: one line, names and files kept as they are."""
    line = " ".join((said or "").split())
    return re.sub(r"([|*_<>\[\]])", r"\\\1", line)


def spelled(parameter: Any) -> str:
    """How an option is written: its names and what follows them."""
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    value = "" if getattr(parameter, "is_flag", False) else parameter.metavar or choices(parameter)
    return f"{names} `{value}`".replace("|", "\\|") if value else names


def choices(parameter: Any) -> str:
    """What an option without an example takes: one of a few words, or the kind of its value."""
    kind = parameter.type_descriptor.annotation
    if isinstance(kind, EnumMeta):
        return "|".join(str(choice.value) for choice in kind)
    return {int: "NUMBER", float: "NUMBER", Path: "FILE"}.get(kind, "TEXT")


def default(parameter: Any) -> str:
    """What holds where an option is not given, as its help shows it; empty where there is nothing to say."""
    shown, value = parameter.show_default, parameter.default
    if isinstance(shown, str):
        return text(shown)
    if not shown or value is None or isinstance(value, bool) or callable(value):
        return ""
    return f"`{getattr(value, 'value', value)}`"


def tables(command: Any) -> Iterator[str]:
    """The options of a command: a table per panel of its help."""
    panels: dict[str, list[str]] = {}
    for parameter in command.params:
        if parameter.name in _EVERYWHERE:
            continue
        if parameter.param_type_name == "argument":
            panel, name = "Arguments", f"`{parameter.metavar or parameter.name.upper()}`"
        else:
            panel, name = getattr(parameter, "rich_help_panel", None) or "Options", spelled(parameter)
        marks = [word for word, so in (("required", parameter.required), ("rare", parameter.hidden)) if so]
        said = text(parameter.help) + (f" *({', '.join(marks)})*" if marks else "")
        panels.setdefault(panel, []).append(f"| {name} | {said} | {default(parameter)} |")
    for panel, rows in panels.items():
        yield "\n".join([f"**{panel}**", "", "| option | what it does | default |", "| --- | --- | --- |", *rows, ""])


def section(name: str, command: Any) -> str:
    """One command: what it does, and its options."""
    paragraphs = [text(part) + "\n" for part in (command.help or "").split("\n\n") if part.strip()]
    return "\n".join([f"### onnxprune {name}", "", *paragraphs, *tables(command)])


def page() -> str:
    """The whole page."""
    group: Any = typer.main.get_command(app)
    parts, purpose = [_INTRODUCTION, "## Before the command\n", *tables(group)], None
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if command.rich_help_panel != purpose:
            purpose = command.rich_help_panel
            parts.append(f"## {purpose}\n")
        parts.append(section(name, command))
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(page(), encoding="utf-8")
