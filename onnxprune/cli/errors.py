"""What becomes of errors: one message on stderr (or JSON on stdout), and an exit code."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from onnxprune._display import shown
from onnxprune.errors import (
    AnswersError,
    BudgetError,
    ClusterError,
    MeasurementError,
    OnnxPruneError,
    PassError,
    RecordingError,
    TrainingError,
    VerificationError,
)

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


class OutputError(OnnxPruneError):
    """The result could not be written."""


_COULD_NOT = (
    AnswersError,
    BudgetError,
    VerificationError,
    PassError,
    OutputError,
    MeasurementError,
    TrainingError,
    RecordingError,
    ClusterError,
)


class ErrorHandlingGroup(TyperGroup):
    """Runs the commands; whatever they raise becomes a message and an exit code, never a traceback."""

    def main(self, args: Sequence[str] | None = None, *more: Any, **extra: Any) -> Any:
        """Run with these arguments (those of the process if None), and exit."""
        words = list(sys.argv[1:] if args is None else args) or ["--help"]
        try:
            code = super().main(words, *more, **{**extra, "standalone_mode": False})
            sys.stdout.flush()
            if code == INTERRUPTED:  # What newer versions of typer make of Ctrl-C; older ones abort.
                raise typer.Abort
        except (KeyboardInterrupt, typer.Abort):
            code = _report("interrupted", "Interrupted", INTERRUPTED, words)
        except BrokenPipeError:
            # The reader has seen enough ('onnxprune analyze M | head'). What is left goes nowhere, or Python
            # would complain at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = FAILED
        except Exception as error:
            code = _report(*_described(error), words)
        sys.exit(code if isinstance(code, int) else DONE)


def _described(error: Exception) -> tuple[str, str, int]:
    """Message, type and exit code of an error."""
    if isinstance(error, OnnxPruneError):
        return str(error), type(error).__name__, FAILED if isinstance(error, _COULD_NOT) else USAGE
    # Typer's own errors come from different modules in its versions; all of them can format themselves.
    formatted = getattr(error, "format_message", None)
    if formatted is not None:
        return str(formatted()), "UsageError", getattr(error, "exit_code", USAGE)
    if isinstance(error, MemoryError):
        return "there is not enough memory for this model", "MemoryError", FAILED
    if isinstance(error, OSError):
        where = "" if error.filename is None else f" ({error.filename})"
        return f"{error.strerror or error}{where}", type(error).__name__, FAILED
    message = f"unexpected {type(error).__name__}: {error}; this is a fault of onnxprune, please report it"
    return message, type(error).__name__, FAILED


def _report(message: str, kind: str, code: int, words: Sequence[str]) -> int:
    if "--json" in words:
        print(json.dumps({"error": {"type": kind, "message": message}}, indent=2))
    else:
        print(f"error: {shown(message)}", file=sys.stderr)
    return code
