"""Where the peers live: each in an environment of its own, made at first use."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Environment:
    """A Python environment that holds one tool.

    Attributes:
        name: of its folder.
        variable: the environment variable that names an interpreter to use instead.
        packages: what pip installs; none means the interpreter that runs the benchmark.
    """

    name: str
    variable: str
    packages: tuple[str, ...] = ()


OWN = Environment("onnxprune", "ONNXPRUNE_BENCH_OWN")
ONNXSIM = Environment("onnxsim", "ONNXPRUNE_BENCH_ONNXSIM", ("onnxsim==0.8.1",))
TORCH_PRUNING = Environment(
    "torch-pruning",
    "ONNXPRUNE_BENCH_TORCH_PRUNING",
    ("torch==2.14.1", "torchvision==0.29.1", "torch-pruning==1.6.1"),
)


def interpreter(environment: Environment) -> str:
    """The interpreter of an environment, which is made if it is not there.

    Raises:
        subprocess.CalledProcessError: pip cannot install the packages.
    """
    given = os.environ.get(environment.variable)
    if given or not environment.packages:
        return given or sys.executable
    folder = Path.home() / ".cache" / "onnxprune-benchmarks" / environment.name
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    complete = folder / "complete"
    if not complete.exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *environment.packages], check=True)
        complete.touch()
    return str(python)


def one_thread() -> dict[str, str]:
    """The process environment that keeps numerical libraries to one thread."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, "1")}
