"""Regenerates every reference model: ``python -m models.build``, from the top of the checkout.

Each framework trains in a process of its own, with one thread, one after the other.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from models.data import DEBIAN_FOLDER

_ONE_THREAD = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
_STEPS: tuple[tuple[str, dict[str, str]], ...] = (
    ("models.build_torch", {}),
    ("models.build_keras", {"KERAS_BACKEND": "tensorflow"}),
    ("models.build_keras", {"KERAS_BACKEND": "torch"}),
)


def main() -> None:
    """Run every build in turn; the first that fails ends it, with its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DEBIAN_FOLDER, help="folder of Fashion-MNIST")
    arguments = parser.parse_args()
    for module, settings in _STEPS:
        command = [sys.executable, "-m", module, "--data", str(arguments.data)]
        finished = subprocess.run(command, env={**os.environ, **_ONE_THREAD, **settings}, check=False)
        if finished.returncode:
            sys.exit(finished.returncode)


if __name__ == "__main__":
    main()
