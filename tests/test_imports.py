"""Which module may import which: the contracts of pyproject.toml hold, and notice what breaks them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FAULTS = {
    "a room imports one above it": (
        "ir/extents.py",
        "from onnxprune.ops.relations import IntArray",
        "Rooms import downwards",
    ),
    "inside a function": (
        "passes/base.py",
        "def _f():\n    from onnxprune.pruning.shrinking import Shrink",
        "Rooms import downwards",
    ),
    "for type checking": (
        "data/samples.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from onnxprune.torch.module import Module",
        "Rooms import downwards",
    ),
    "masking shares code with shrinking": (
        "pruning/masking.py",
        "import onnxprune.pruning.shrinking",
        "What proves shares nothing with what removes",
    ),
    "criteria know who chooses": (
        "pruning/criteria/base.py",
        "import onnxprune.pruning.choosing",
        "Pruning imports downwards",
    ),
    "two modules of a room import each other": (
        "analysis/atoms.py",
        "import onnxprune.analysis.analyzing",
        "No circles",
    ),
    "a room nobody has heard of": ("attic/__init__.py", "", "Rooms import downwards"),
}


def _lint(folder: Path) -> tuple[int, str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()"]
    options = [str(ROOT / "pyproject.toml"), "--no-cache", "--no-logo"]
    done = subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The package as an installation lays it out."""
    pytest.importorskip("importlinter")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "onnxprune", tmp_path / "onnxprune", ignore=ignored)
    shutil.copytree(ROOT / "passes", tmp_path / "onnxprune" / "passes", ignore=ignored)
    return tmp_path


def test_the_contracts_hold(installed: Path) -> None:
    code, said = _lint(installed)
    assert code == 0, said
    assert " 0 broken" in said


@pytest.mark.parametrize("fault", FAULTS)
def test_the_contracts_notice(installed: Path, fault: str) -> None:
    where, line, contract = FAULTS[fault]
    file = installed / "onnxprune" / where
    file.parent.mkdir(exist_ok=True)
    with file.open("a", encoding="utf-8") as text:
        text.write(f"\n{line}\n")
    code, said = _lint(installed)
    assert code != 0, said
    assert f"{contract} BROKEN" in said
