"""``--plugin``, which every command takes: modules whose operators, criteria, converters and passes a run knows."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer

from onnxprune.cli.help import HelpAllOption

_Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        metavar="MODULE",
        help="A module, or a .py file, with OPERATORS, CRITERIA, CONVERTERS, PASSES or TASKS of its own. Repeatable.",
        show_default=False,
        hidden=True,
    ),
]


def pluggable(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with the option: the modules are loaded, and named in the environment for as long as it runs.

    Worker processes inherit the environment, and so know what the command knows.
    """

    @functools.wraps(command)
    def run(*args: Any, plugins: list[str] | None = None, help_all: bool = False, **kwargs: Any) -> Any:
        if not plugins:
            return command(*args, **kwargs)
        from onnxprune.ops.registry import PLUGINS, plugin

        names = [os.path.abspath(name) if name.endswith(".py") else name for name in plugins]
        for name in names:
            plugin(name)
        before = os.environ.get(PLUGINS, "")
        os.environ[PLUGINS] = ",".join(filter(None, (before, *names)))
        try:
            return command(*args, **kwargs)
        finally:
            os.environ[PLUGINS] = before

    hints = get_type_hints(command, include_extras=True)
    given = (p.replace(annotation=hints[p.name]) for p in inspect.signature(command).parameters.values())
    keyword = inspect.Parameter.KEYWORD_ONLY
    option = inspect.Parameter("plugins", keyword, default=None, annotation=_Plugins)
    more = inspect.Parameter("help_all", keyword, default=False, annotation=HelpAllOption)
    run.__signature__ = inspect.Signature([*given, option, more])  # type: ignore[attr-defined]
    run.__annotations__ = {**hints, "plugins": _Plugins, "help_all": HelpAllOption}
    return run
