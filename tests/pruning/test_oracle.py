"""Costs and budgets against an independent counter: onnx-tool's shapes and multiply-accumulates.

onnx-tool counts the bias of a layer as one more multiply-accumulate per output element, which is taken off
here, and a ConvTranspose as if it were a Conv, which is counted anew from onnx-tool's shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnx_tool
import pytest

import onnxprune

MODELS = sorted((Path(__file__).parents[2] / "models").glob("*.onnx"))
ZOO = (
    "mobilenet_v2",
    "resnet50",
    "resnext50_32x4d",
    "densenet121",
    "efficientnet_b0",
    "googlenet",
    "shufflenet_v2_x1_0",
    "regnet_y_3_2gf",
    "mobilenet_v3_small",
)
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
MODES = ("params", "flops", "memory")
MOST_REMOVED = 0.525


@dataclass(frozen=True)
class Count:
    """What the oracle finds in a model.

    ``layer_params`` and ``layer_flops`` are sums per operator type; ``memory`` are bytes of all weights and of
    the output activations of the layers.
    """

    layer_params: dict[str, int]
    layer_flops: dict[str, int]
    params: int
    memory: int

    @property
    def flops(self) -> int:
        """Multiply-accumulates of all layers."""
        return sum(self.layer_flops.values())

    def of(self, mode: str) -> int:
        """The total that a mode of the library prunes by."""
        return {"params": self.params, "flops": self.flops, "memory": self.memory}[mode]


def count(model: onnx.ModelProto) -> Count:
    """Count a model at batch 1 with onnx-tool."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)  # onnx-tool changes what it is given
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weights |= {  # the Keras exports hold some weights as Constant nodes
        node.output[0]: onnx.numpy_helper.to_array(node.attribute[0].t)
        for node in model.graph.node
        if node.op_type == "Constant" and node.attribute[0].name == "value"
    }
    inputs = {
        port.name: np.zeros([dim.dim_value or 1 for dim in port.type.tensor_type.shape.dim], dtype=np.float32)
        for port in model.graph.input
        if port.name not in weights
    }
    graph = onnx_tool.Model(copy, {"verbose": False}).graph
    graph.shape_infer(inputs)
    graph.profile()
    params, flops, activations = dict.fromkeys(LAYERS, 0), dict.fromkeys(LAYERS, 0), 0
    for node in graph.nodemap.values():
        if node.op_type not in LAYERS:
            continue
        shape = graph.tensormap[node.output[0]].get_shape()
        params[node.op_type] += node.params
        activations += 4 * prod(shape)
        if node.op_type == "ConvTranspose":
            source, kernel = (graph.tensormap[name].get_shape() for name in node.input[:2])
            flops[node.op_type] += prod(source) * prod(kernel[1:])
        else:
            has_bias = len(node.input) == 3
            flops[node.op_type] += node.macs[0] - (prod(shape) if has_bias else 0)
    return Count(
        layer_params=params,
        layer_flops=flops,
        params=sum(array.size for array in weights.values() if array.dtype.kind == "f"),
        memory=activations + sum(array.nbytes for array in weights.values()),
    )


def check_analysis(model: onnx.ModelProto) -> None:
    """The analysis finds what the oracle finds."""
    analysis, oracle = onnxprune.analyze(model), count(onnxprune.normalize(model).proto)
    for op_type in LAYERS:
        layers = [layer for layer in analysis.layers if layer.op_type == op_type]
        assert sum(layer.flops for layer in layers) == oracle.layer_flops[op_type]
        assert sum(layer.params for layer in layers) == oracle.layer_params[op_type]
    for mode in MODES:
        assert analysis.totals[mode] == oracle.of(mode)


def check_budget(model: onnx.ModelProto, mode: str, allocation: str) -> None:
    """Asked for half, the library removes half by the oracle's count, and says so."""
    analysis = onnxprune.analyze(model)
    plan = onnxprune.plan(analysis, mode=mode, reduce=0.5, allocation=allocation)
    before = count(analysis.model.proto)
    after = count(onnxprune.apply(model, plan).proto)
    # Fix-ups of shape arithmetic may add a few integers, which take some bytes.
    assert plan.after[mode] == pytest.approx(after.of(mode), rel=1e-3 if mode == "memory" else 0)
    assert 0.5 <= 1 - after.of(mode) / before.of(mode) <= MOST_REMOVED


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_the_analysis_counts_as_the_oracle(path: Path) -> None:
    check_analysis(onnx.load(path))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("allocation", ["complexity", "complexity-mean"])
@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_half_is_removed_by_the_oracles_count(path: Path, allocation: str, mode: str) -> None:
    check_budget(onnx.load(path), mode, allocation)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
@pytest.mark.parametrize("seed", range(3))
def test_every_draw_ends_one_step_below_the_budget(path: Path, seed: int) -> None:
    """Whatever is drawn last, putting back one unit of it would exceed the budget: nothing is removed in vain."""
    analysis = onnxprune.analyze(path)
    limit = 0.5 * analysis.totals["flops"]
    left = count(onnxprune.apply(path, onnxprune.plan(analysis, reduce=0.5, seed=seed)).proto).flops
    largest_step = max(layer.flops / layer.channels for layer in analysis.layers)
    # A unit of a group takes a filter from every layer that the group runs through.
    coupled = max((len(group.layers) for group in analysis.groups if group.layers), default=1)
    assert limit - 2 * coupled * largest_step <= left <= limit


@pytest.fixture(scope="module")
def exported() -> Callable[[str], onnx.ModelProto]:
    """Exports a network of the zoo, where PyTorch is there."""
    pytest.importorskip("torch")
    from tests.zoo.networks import export

    return lambda name: onnx.load(export(name))


@pytest.mark.zoo
@pytest.mark.parametrize("name", ZOO)
def test_the_analysis_counts_real_networks_as_the_oracle(name: str, exported: Callable[[str], onnx.ModelProto]) -> None:
    check_analysis(exported(name))


@pytest.mark.zoo
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ZOO)
def test_half_of_a_real_network_is_removed_by_the_oracles_count(
    name: str, mode: str, exported: Callable[[str], onnx.ModelProto]
) -> None:
    check_budget(exported(name), mode, "complexity")
