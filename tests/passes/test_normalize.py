from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxprune.ir.model import load
from onnxprune.passes import NORMALIZATION, normalize
from onnxprune.passes.manager import Check, PassManager

LIGHT = sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("light_*.onnx"))


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_caffe2_exports(path: Path) -> None:
    model = load(path)
    normal = normalize(model)
    assert normalize(model) is normal
    assert normalize(normal) is normal
    ops = {node.op_type for node in normal.graph.node}
    assert ops.isdisjoint({"Constant", "ConstantOfShape", "Identity"})
    assert all(node.input[1] in normal.weights for node in normal.graph.node if node.op_type in ("Conv", "Gemm"))
    read = [name for node in normal.graph.node for name in node.input]
    assert all(read.count(name) == 1 for name, weight in normal.weights.items() if weight.size > 1)
    assert not normal.graph.value_info


@pytest.mark.parametrize("name", ["light_squeezenet", "light_shufflenet"])
def test_every_step_keeps_the_function(name: str) -> None:
    model = load(next(path for path in LIGHT if path.stem == name))
    result = PassManager(NORMALIZATION, Check.EQUALITY).run(model)
    assert result.modified


def test_deterministic() -> None:
    path = next(path for path in LIGHT if path.stem == "light_shufflenet")
    assert normalize(load(path)).proto == normalize(load(path)).proto


def test_reloaded_normal_form_is_normal(tmp_path: Path) -> None:
    path = next(path for path in LIGHT if path.stem == "light_shufflenet")
    normalize(load(path)).save(tmp_path / "m.onnx")
    model = load(tmp_path / "m.onnx")
    assert normalize(model) is model


def test_a_vector_no_longer_shared_is_folded_away(build) -> None:
    model = build(
        "g (float[20000] x) => (float[20000] y) { n = Neg(v)  a = Add(x, n)  y = Add(a, v) }",
        weights={"v": np.ones(20000, np.float32)},
    )
    normal = normalize(model)
    assert [node.op_type for node in normal.graph.node] == ["Add", "Add"]
    assert normalize(load(normal.proto)).proto == normal.proto


@pytest.mark.benchmark
def test_clean_graphs_take_no_time() -> None:
    nodes, weights = [], []
    for index in range(500):
        weights.append(numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), f"w{index}"))
        nodes.append(helper.make_node("Conv", [f"t{index}", f"w{index}"], [f"c{index}"], f"conv{index}", pads=[0] * 4))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"t{index + 1}"], f"relu{index}"))
    inputs = [helper.make_tensor_value_info("t0", 1, [1, 1, 8, 8])]
    outputs = [helper.make_tensor_value_info("t500", 1, [1, 1, 8, 8])]
    proto = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, weights))
    seconds = []
    for _ in range(5):
        model = load(proto)
        start = time.perf_counter()
        assert normalize(model) is model
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.015
