"""The workflow of docs/olive.md, in an environment with Olive: what its page shows, and what becomes of a failure."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import onnx
import pytest

import onnxprune
from tests.benchmarks.environments import Environment, interpreter

pytestmark = pytest.mark.compilers

ROOT = Path(__file__).parents[2]
OLIVE = Environment("olive", "ONNXPRUNE_COMPILERS_OLIVE", ("olive-ai==0.13.0", "requests", "-e", str(ROOT)))
PAGE = (ROOT / "docs" / "olive.md").read_text(encoding="utf-8")


def _run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "models").symlink_to(ROOT / "models")
    quiet = {**os.environ, "OLIVE_DISABLE_TELEMETRY": "1"}
    return subprocess.run([interpreter(OLIVE), "-c", code], cwd=folder, env=quiet, capture_output=True, text=True)


def _shown() -> str:
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(code)


def test_the_workflow_prunes_and_olive_goes_on(tmp_path: Path) -> None:
    done = _run(_shown(), tmp_path)
    assert done.returncode == 0, done.stderr
    path = tmp_path / done.stdout.splitlines()[-1]
    made = onnx.load(path)
    assert any(node.op_type in ("MatMulInteger", "ConvInteger", "DynamicQuantizeLinear") for node in made.graph.node)
    weights = {tuple(tensor.dims) for tensor in made.graph.initializer if len(tensor.dims) == 4}
    before = {tuple(tensor.dims) for tensor in onnx.load(ROOT / "models" / "vgg_torchscript.onnx").graph.initializer}
    assert weights - before  # narrower layers
    assert onnxprune.load(path).skeleton.graph.output[0].name == "logits"


def test_what_fails_there_fails_in_the_workflow(tmp_path: Path) -> None:
    done = _run(_shown().replace("reduce=0.5", "reduce=0.999"), tmp_path)
    assert "BudgetError" in done.stdout + done.stderr
    assert not (tmp_path / "out" / "model.onnx").exists()
