"""Every converter against the test cases of the ``onnx`` package, and against onnxruntime at each opset revision."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest

pytest.importorskip("torch")

import torch

from onnxprune.errors import OnnxPruneError
from onnxprune.torch import default_registry, to_module, write_back

from .node_cases import DISPUTED, NEWEST_OPSET, WRONG_IN_ONNXRUNTIME, Case, cases

OPERATORS = sorted({op_type for domain, op_type, _, _ in default_registry().supported() if not domain})
OLDEST_OPSET = 7
CASES_PER_REVISION = 3


def run(model: onnx.ModelProto, inputs: list[np.ndarray]) -> list[torch.Tensor]:
    module = to_module(model)
    results = module(*(torch.from_numpy(np.array(value)) for value in inputs))
    return [results] if isinstance(results, torch.Tensor) else list(results)


def check(found: list[torch.Tensor], wanted: list[np.ndarray], case: Case, what: str) -> None:
    assert len(found) == len(wanted)
    for tensor, expected in zip(found, wanted, strict=True):
        got = tensor.detach().numpy()
        assert (got.shape, got.dtype) == (expected.shape, expected.dtype), f"{case.name}, {what}"
        rtol, atol = max(case.rtol, 1e-4), max(case.atol, 1e-6)
        if expected.dtype == np.float16:
            rtol, atol = 1e-2, 1e-3
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol, err_msg=f"{case.name}, {what}")


@pytest.mark.parametrize("op_type", OPERATORS)
def test_single_operators(op_type: str) -> None:
    for case in cases().get(op_type, ()):
        if case.name not in DISPUTED:
            for inputs, outputs in case.data:
                check(run(case.model, inputs), outputs, case, "expected values")


def test_operators_written_as_graphs() -> None:
    assert len(cases()[None]) > 50
    for case in cases()[None]:
        for inputs, outputs in case.data:
            check(run(case.model, inputs), outputs, case, "expected values")


def with_weights(case: Case) -> tuple[onnx.ModelProto, list[np.ndarray]]:
    """The model with all operands but the first as initialisers, and the first input."""
    proto = onnx.ModelProto()
    proto.CopyFrom(case.model)
    inputs, graph = case.data[0][0], proto.graph
    for value, array in zip(list(graph.input)[1:], inputs[1:], strict=False):
        graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
    del graph.input[1:]
    return proto, inputs[:1]


@pytest.mark.parametrize("op_type", OPERATORS)
def test_operands_as_weights_and_round_trip(op_type: str) -> None:
    for case in cases().get(op_type, ()):
        if case.name in DISPUTED or len(case.data[0][0]) < 2:
            continue
        proto, inputs = with_weights(case)
        check(run(proto, inputs), case.data[0][1], case, "operands as weights")
        assert write_back(to_module(proto), proto).to_proto() == proto


def revisions(op_type: str) -> list[int]:
    """The opsets at which the operator's definition changed."""
    versions = {
        schema.since_version
        for schema in onnx.defs.get_all_schemas_with_history()
        if schema.name == op_type and schema.domain == ""
    }
    return sorted({max(version, OLDEST_OPSET) for version in versions if version <= NEWEST_OPSET})


def at_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto | None:
    """The model said to be of another opset, if it is valid there."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model)
    for entry in proto.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = opset
    proto.ir_version = 8 if opset < 21 else 10
    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception:  # the checker and shape inference have exceptions of their own
        return None
    return proto


@pytest.mark.parametrize("op_type", OPERATORS)
def test_every_revision_equals_onnxruntime(op_type: str) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    for opset in revisions(op_type):
        compared = 0
        for case in cases().get(op_type, ()):
            proto = at_opset(case.model, opset)
            if proto is None or compared == CASES_PER_REVISION or case.name in WRONG_IN_ONNXRUNTIME:
                continue
            inputs = case.data[0][0]
            feeds = {value.name: array for value, array in zip(proto.graph.input, inputs, strict=False)}
            try:
                session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
                wanted = session.run(None, feeds)
            except Exception:  # onnxruntime's exceptions have no common base, and not all types have kernels
                continue
            check(run(proto, inputs), wanted, case, f"onnxruntime at opset {opset}")
            compared += 1


def test_error_names_every_unknown_operator() -> None:
    nodes = [
        onnx.helper.make_node("Foo", ["x"], ["a"], domain="my"),
        onnx.helper.make_node("StringNormalizer", ["a"], ["b"]),
        onnx.helper.make_node("Foo", ["b"], ["y"], domain="my"),
    ]
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = onnx.helper.make_graph(nodes, "test", values[:1], values[1:])
    imports = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("my", 1)]
    with pytest.raises(OnnxPruneError, match=r"no converter for StringNormalizer.*my\.Foo \(opset 1\) at 2 nodes"):
        to_module(onnx.helper.make_model(graph, opset_imports=imports, ir_version=8))
