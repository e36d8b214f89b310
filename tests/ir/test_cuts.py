"""Blocks have a single entry: what a cut tensor promises, tried on graphs."""

import numpy as np
import onnx
import pytest

from onnxprune.ir.cuts import cut_tensors, without_parameters
from onnxprune.ir.graph import Graph
from onnxprune.ir.model import as_model
from onnxprune.ir.shapes import infer_shapes
from onnxprune.passes.normalize import normalize


def _graph(text: str) -> Graph:
    model = normalize(as_model(onnx.parser.parse_model(text)))
    return Graph(model, infer_shapes(model))


def test_cuts_of_a_residual_block_are_its_entry_and_its_end() -> None:
    graph = _graph("""
    <ir_version: 8, opset_import: ["": 17]>
    small (float[N, 4] x) => (float[N, 4] y) {
        entry = Relu(x)
        inner = Sigmoid(entry)
        more = Tanh(inner)
        end = Add(entry, more)
        y = Relu(end)
    }
    """)
    assert cut_tensors(graph) == ("entry", "end")


def test_two_inputs_and_skips_to_the_end_leave_no_cuts() -> None:
    graph = _graph("""
    <ir_version: 8, opset_import: ["": 17]>
    small (float[N, 4] x, float[N, 4] z) => (float[N, 4] y) {
        a = Relu(x)
        b = Tanh(a)
        y = Add(b, z)
    }
    """)
    assert cut_tensors(graph) == ()


@pytest.mark.parametrize("seed", range(20))
def test_no_path_goes_around_a_cut(seed: int) -> None:
    """Random graphs: without the cut tensor, nothing behind it can be reached from the input."""
    rng = np.random.default_rng(seed)
    tensors, lines = ["x"], []
    for number in range(12):
        # Mostly the newest tensor, so that some graphs have cuts.
        first = tensors[-1] if rng.random() < 0.7 else tensors[rng.integers(len(tensors))]
        second = tensors[rng.integers(max(0, len(tensors) - 3), len(tensors))]
        lines.append(f"t{number} = Add({first}, {second})" if rng.random() < 0.5 else f"t{number} = Relu({first})")
        tensors.append(f"t{number}")
    body = "\n".join([*lines, f"y = Relu({tensors[-1]})"])
    graph = _graph(f'<ir_version: 8, opset_import: ["": 17]> g (float[N, 4] x) => (float[N, 4] y) {{ {body} }}')
    cuts = cut_tensors(graph)
    needed = {"y"}
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            needed.update(node.reads)
    for cut in cuts:
        place = graph.producer[cut]
        reached = {"x"} | {n for node in graph.nodes[:place] for n in node.outputs}
        behind = [node for node in graph.nodes[place + 1 :] if needed.intersection(node.outputs)]
        assert not any(reached.intersection(node.reads) for node in behind)
    # Every other needed tensor is gone around by something.
    for node in graph.nodes[:-1]:
        (name,) = node.outputs
        if name in needed and name not in cuts:
            reached = {"x"} | {n for earlier in graph.nodes[: node.index] for n in earlier.outputs}
            assert any(reached.intersection(later.reads) for later in graph.nodes[node.index + 1 :])


def test_no_more_than_asked_for() -> None:
    body = " ".join(f"t{i + 1} = Relu(t{i})" for i in range(30))
    graph = _graph(f'<ir_version: 8, opset_import: ["": 17]> g (float[N, 4] t0) => (float[N, 4] t30) {{ {body} }}')
    assert len(cut_tensors(graph)) == 29
    assert len(cut_tensors(graph, 5)) == 5


def test_a_mask_that_all_blocks_read_hides_no_cuts() -> None:
    graph = _graph("""
    <ir_version: 8, opset_import: ["": 17]>
    small (float[N, 4] x, int64[N, 4] mask) => (float[N, 4] y)
    <float[4, 4] w = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}, float one = {1.0}> {
        kept = Cast<to = 1>(mask)
        bias = Sub(kept, one)
        entry = MatMul(x, w)
        first = Add(entry, bias)
        second = MatMul(first, w)
        y = Add(second, bias)
    }
    """)
    assert cut_tensors(graph) == ()
    aside = without_parameters(graph)
    assert aside >= {"x", "mask", "kept", "bias"}
    assert "entry" not in aside
    assert cut_tensors(graph, None, aside) == ("entry", "first", "second")
