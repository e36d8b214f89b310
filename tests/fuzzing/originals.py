"""The good files that hostile ones are made from."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from onnx import ModelProto, helper, numpy_helper

import onnxprune
from onnxprune.torch.training.checkpoints import Identity, Progress
from tests.cli.support import conv, node
from tests.cli.support import model as made_of
from tests.exploration.support import made_up, recorded

IDENTITY = Identity("m", "d", "", {"epochs": 2})


@cache
def small() -> ModelProto:
    """A network with what is read from operands and attributes: convolutions, a Reshape, a Slice, a body."""
    branch = helper.make_graph([node("Relu", ["a"], "t")], "branch", [], [helper.make_empty_tensor_value_info("t")])
    constants = [
        numpy_helper.from_array(np.array([1, 2, 4, 64], np.int64), "shape"),
        numpy_helper.from_array(np.array([1, 8, 8, 8], np.int64), "back"),
        numpy_helper.from_array(np.array([0], np.int64), "start"),
        numpy_helper.from_array(np.array([6], np.int64), "end"),
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
        numpy_helper.from_array(np.array(True), "yes"),
        *(numpy_helper.from_array(np.ones(8, np.float32), f"bn{i}") for i in range(4)),
    ]
    return made_of(
        conv("x", "a", 8, 3),
        node("If", ["yes"], "b", then_branch=branch, else_branch=branch),
        node("BatchNormalization", ["b", "bn0", "bn1", "bn2", "bn3"], "n"),
        node("Reshape", ["n", "shape"], "r"),
        node("Reshape", ["r", "back"], "s"),
        node("Slice", ["s", "start", "end", "axis"], "c"),
        conv("c", "y", 4, 6),
        constants=constants,
    )


@cache
def original(kind: str) -> bytes:
    """A good file of a kind."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        if kind == "model":
            path.write_bytes(small().SerializeToString())
        elif kind == "plan":
            onnxprune.plan(small(), channels=0.5).save(path)
        elif kind == "npz":
            values = np.random.default_rng(0).standard_normal((8, 1, 4, 4)).astype(np.float32)
            np.savez_compressed(path, x_train=values, y_train=np.arange(8) % 2)
            path = path.with_name("file.npz")
        elif kind == "table":
            plan = json.dumps(onnxprune.plan(small(), channels=0.5).to_dict())
            settings = {"mode": "flops", "reduce": 0.5, "allocation": "uniform", "criterion": "l2", "seed": 0}
            text = json.dumps({**settings, "then": "compensate", "compensate": {"method": "refit", "samples": 8}})
            recorded(path, *(made_up(i, settings=text, params=100.0 + 10 * i) for i in range(8)), plan=plan)
        else:
            _checkpoint(path)
        return path.read_bytes()


def _checkpoint(path: Path) -> None:
    import torch

    from onnxprune.data.evaluation import Score
    from onnxprune.torch.training import checkpoints
    from onnxprune.torch.training.history import Epoch

    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    history = [Epoch(0, 1e-3, Score(1.0, 0.5, 8), Score(1.0, None, 8), 0.1)]
    state = module.state_dict()
    checkpoints.save(path, IDENTITY, Progress(history, state, optimizer.state_dict(), {}, state, 0))
