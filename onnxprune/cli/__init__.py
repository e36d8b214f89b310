"""The command line. ``main`` is the console script; everything heavy is imported inside the commands."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line and exit with its code."""
    # Threads of PyTorch that wait for one another spin, and take the processors that the others need: where a machine
    # is busy, an epoch took 10 times as long. Waiting changes no sum.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets '?' instead of a traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        from onnxprune.cli.app import app

        app(prog_name="onnxprune")
    except KeyboardInterrupt:
        sys.exit(130)
