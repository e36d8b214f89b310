"""The commands, by purpose, in the order that the help shows them."""

from __future__ import annotations

import logging
from enum import Enum
from typing import Annotated

import typer

from onnxprune.cli.analyze import analyze
from onnxprune.cli.auto import auto
from onnxprune.cli.bench import bench
from onnxprune.cli.compress import compress
from onnxprune.cli.errors import ErrorHandlingGroup
from onnxprune.cli.exits import exits
from onnxprune.cli.explain import explain
from onnxprune.cli.explore import explore, merge
from onnxprune.cli.help import SETTINGS, Command
from onnxprune.cli.keep import keep
from onnxprune.cli.passes import normalize, passes, run
from onnxprune.cli.pick import pick
from onnxprune.cli.plan import plan
from onnxprune.cli.plugins import pluggable
from onnxprune.cli.profile import profile
from onnxprune.cli.prune import apply, prune, verify
from onnxprune.cli.quantize import quantize
from onnxprune.cli.recover import recover
from onnxprune.cli.report import report
from onnxprune.cli.sensitivity import sensitivity
from onnxprune.cli.split import split
from onnxprune.cli.torch import torch
from onnxprune.cli.train import train

app = typer.Typer(cls=ErrorHandlingGroup, context_settings=SETTINGS, pretty_exceptions_enable=False)


class LogLevel(str, Enum):
    """The least severe messages that are shown."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def _version(wanted: bool) -> None:
    if wanted:
        from onnxprune import __version__

        typer.echo(f"onnxprune {__version__}")
        raise typer.Exit


@app.callback()
def onnxprune(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    log_level: Annotated[
        LogLevel, typer.Option(help="What to log on standard error; 'debug' tells what every pass did.")
    ] = LogLevel.WARNING,
) -> None:
    """Make ONNX models smaller, with a certificate that the result is right.

    Exit codes: 0 done, 1 the budget could not be met or the result not verified, 2 wrong usage or unreadable input.
    """
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("onnxprune").setLevel(log_level.value.upper())


_PURPOSES = {
    "Look at a model": (analyze, explain, sensitivity, report, bench, profile),
    "Make it smaller": (auto, prune, plan, apply, verify, quantize, keep),
    "Train it": (recover, train, compress, torch),
    "Run it on several machines": (split, exits),
    "Explore the trade-off": (explore, pick, merge),
    "Pipelines": (normalize, run, passes),
}
for _purpose, _commands in _PURPOSES.items():
    for _command in _commands:
        app.command(cls=Command, context_settings=SETTINGS, rich_help_panel=_purpose)(pluggable(_command))
