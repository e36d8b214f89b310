"""Models whose weights are in data files: how many there are, what they hold, and what a failure leaves."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

import onnxprune
from onnxprune.cli.app import app
from onnxprune.errors import ModelError
from onnxprune.ir import saving
from onnxprune.ir.storage import STREAMED
from tests.cli.support import conv, model

SHARD = 1 << 20


def network() -> onnx.ModelProto:
    """Three convolutions, the middle one of 1.2 MB."""
    return model(conv("x", "a", 180, 3), conv("a", "b", 180, 180), conv("b", "y", 4, 180))


def test_shards_hold_all_bytes(tmp_path: Path) -> None:
    given = onnxprune.load(network())
    given.save(tmp_path / "m.onnx", external_data=SHARD)
    shards = sorted(tmp_path.glob("m.onnx.*.data"))
    largest = max(weight.nbytes for weight in given.weights.values())
    assert len(shards) > 1
    assert largest > STREAMED
    assert all(shard.stat().st_size <= max(SHARD, largest) for shard in shards)
    again = onnxprune.load(tmp_path / "m.onnx")
    for name, weight in given.weights.items():
        np.testing.assert_array_equal(again.weights[name].array, weight.array)
    onnx.checker.check_model(str(tmp_path / "m.onnx"))


def test_pruning_streams_to_the_same_result(tmp_path: Path) -> None:
    onnxprune.load(network()).save(tmp_path / "m.onnx", external_data=SHARD)
    command = ["prune", str(tmp_path / "m.onnx"), "--channels", "0.5", "--no-verify", "--no-bench", "-o"]
    for more in ((), ("--external-data", "one"), ("--external-data", "100k")):
        done = CliRunner().invoke(app, [*command, str(tmp_path / f"p{len(more)}{more[-1:]}.onnx"), *more])
        assert done.exit_code == 0, done.output
    plain = onnxprune.compress(network(), channels=0.5, certify=False).model
    for path in tmp_path.glob("p*.onnx"):
        streamed = onnxprune.load(path)
        for name, weight in plain.weights.items():
            np.testing.assert_array_equal(streamed.weights[name].array, weight.array)
    refused = CliRunner().invoke(app, [*command, str(tmp_path / "q.onnx"), "--external-data", "many"])
    assert refused.exit_code == 2


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_nothing_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException) -> None:
    path = tmp_path / "m.onnx"
    onnxprune.load(network()).save(path, external_data=SHARD)
    before = {entry: (tmp_path / entry).read_bytes() for entry in os.listdir(tmp_path)}
    write, calls = saving._write_data, []

    def failing(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 2:
            raise failure
        return write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(saving, "_write_data", failing)
    with pytest.raises((ModelError, KeyboardInterrupt)):
        onnxprune.load(network()).save(path, external_data=SHARD // 2)
    assert {entry: (tmp_path / entry).read_bytes() for entry in os.listdir(tmp_path)} == before


def test_new_shards_replace_old_ones(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnxprune.load(network()).save(path, external_data=SHARD)
    onnxprune.load(network()).save(path, external_data=float("inf"))
    assert len(list(tmp_path.glob("m.onnx.*.data"))) == 1
