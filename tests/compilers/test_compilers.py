"""What an engine takes as published, it takes pruned: run on demand, for the engines whose environments can be made."""

from __future__ import annotations

import dataclasses
import math
import subprocess
from pathlib import Path

import onnx
import pytest

from .engines import COMPILERS, Compiler
from .preparing import prepare
from .rows import Row
from .study import MODELS, ask, version

pytestmark = pytest.mark.compilers

NAMES = ("residual_torchscript", "depthwise_dynamo", "unet_keras_tensorflow", "dense_torchscript")


@pytest.fixture(params=COMPILERS, ids=lambda compiler: compiler.name)
def compiler(request: pytest.FixtureRequest) -> Compiler:
    """An engine; the test is skipped where it cannot be installed."""
    found: Compiler = request.param
    try:
        version(found)
    except (subprocess.CalledProcessError, OSError) as error:
        pytest.skip(f"{found.title} cannot be installed: {error}")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_what_it_takes_it_takes_pruned(compiler: Compiler, name: str, tmp_path: Path) -> None:
    counts = prepare(str(MODELS / f"{name}.onnx"), tmp_path)
    assert counts is not None
    assert counts.new_nodes == 0
    original, pruned = (ask(compiler, tmp_path, which) for which in ("original", "pruned"))
    row = Row(
        "models",
        name,
        compiler.name,
        original=original.get("error", ""),
        pruned=pruned.get("error", ""),
        original_difference=original.get("difference", math.nan),
        pruned_difference=pruned.get("difference", math.nan),
    )
    assert row.known
    assert not row.worse, row


def test_a_wrong_file_is_noticed(compiler: Compiler, tmp_path: Path) -> None:
    prepare(str(MODELS / f"{NAMES[0]}.onnx"), tmp_path)
    wrong = onnx.load(tmp_path / "pruned.onnx")
    first = next(tensor for tensor in wrong.graph.initializer if len(tensor.dims) == 4)
    filters = onnx.numpy_helper.to_array(first)[::-1].copy()
    first.CopyFrom(onnx.numpy_helper.from_array(filters, first.name))
    onnx.save(wrong, tmp_path / "pruned.onnx")
    assert ask(compiler, tmp_path, "pruned")["difference"] > 1e-3


def test_a_time_limit_is_no_refusal(compiler: Compiler, tmp_path: Path) -> None:
    prepare(str(MODELS / f"{NAMES[0]}.onnx"), tmp_path)
    assert "no answer within" in ask(dataclasses.replace(compiler, seconds=0.01), tmp_path, "original")["error"]
