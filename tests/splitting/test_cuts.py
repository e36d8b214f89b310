"""Where graphs can be cut: all cuts, none twice, and why there is none."""

from __future__ import annotations

import itertools

import onnx
import pytest

import onnxprune
from onnxprune.ir.graph import Graph
from onnxprune.splitting.cuts import Cuts, Flow, bits, find_cuts
from tests.random_graphs.strategy import build


def flow(text: str) -> Flow:
    return Flow(Graph(onnxprune.load(onnx.parser.parse_model(text))))


def tensors(found: Cuts) -> list[set[str]]:
    return [set(cut.tensors) for cut in found.found]


RESIDUAL = """<ir_version: 8, opset_import: ["": 17]>
residual (float[1, 4] x) => (float[1, 4] y) <float[4] w = {1, 2, 3, 4}> {
    k = Exp (w)
    a = Relu (x)
    b = Mul (a, k)
    c = Tanh (b)
    d = Add (a, c)
    y = Sigmoid (d)
}"""


def test_what_crosses_is_what_the_rest_reads_and_constants_never_do() -> None:
    found = tensors(find_cuts(flow(RESIDUAL)))
    assert found == [{"a"}, {"a", "b"}, {"a", "c"}, {"d"}]
    assert tensors(find_cuts(flow(RESIDUAL), most=1)) == [{"a"}, {"d"}]


def test_several_inputs_begin_at_the_head() -> None:
    found = tensors(
        find_cuts(
            flow("""<ir_version: 8, opset_import: ["": 17]>
            two (float[1, 4] x, float[1, 4] z) => (float[1, 4] y) {
                a = Relu (x)
                b = Tanh (z)
                c = Add (a, b)
                y = Sigmoid (c)
            }""")
        )
    )
    assert found == [{"a", "z"}, {"x", "b"}, {"a", "b"}, {"c"}]


def test_what_a_body_captures_crosses() -> None:
    found = find_cuts(
        flow("""<ir_version: 8, opset_import: ["": 17]>
        captures (float[1, 4] x, bool c) => (float[1, 4] y) {
            a = Relu (x)
            b = Tanh (a)
            d = If (c) <
                then_branch = one () => (float[1, 4] r) { r = Add (a, b) },
                else_branch = two () => (float[1, 4] s) { s = Identity (b) }
            >
            y = Sigmoid (d)
        }""")
    )
    assert {"a", "b", "c"} in tensors(found)
    assert {"b", "c"} not in tensors(found)


@pytest.mark.parametrize("seed", range(12))
def test_they_are_all_cuts_and_each_is_found_once(seed: int) -> None:
    """Beside every set of nodes that is closed, on networks that nobody designed."""
    analysis = onnxprune.analyze(build(seed, 3).model, trials=False)
    known = Flow(Graph(analysis.model, analysis.shapes))
    nodes = known.computing
    if len(nodes) > 16:
        pytest.skip("too many sets of nodes to try them all")
    closed = []
    for chosen in itertools.product((0, 1), repeat=len(nodes)):
        head = sum(1 << node for node, taken in zip(nodes, chosen, strict=True) if taken)
        is_closed = all(known.needs[node] & ~head == 0 for node in bits(head))
        if is_closed and head and head != known.all and len(known.border(head)) <= 3:
            closed.append((head, known.border(head)))
    found = find_cuts(known, 3)
    assert sorted((cut.head, cut.tensors) for cut in found.found) == sorted(closed)


def test_too_many_cuts_are_told_and_smaller_ones_are_complete() -> None:
    """Two chains side by side: a cut for each pair of places in them."""
    lines = [f"{side}{i + 1} = Relu ({side}{i})" for side in "ab" for i in range(80)]
    found = find_cuts(
        flow(f"""<ir_version: 8, opset_import: ["": 17]>
        chains (float[1, 4] x) => (float[1, 4] y) {{
            a0 = Relu (x)
            b0 = Tanh (x)
            {chr(10).join(lines)}
            c = Add (a80, b80)
            y = Relu (c)
        }}""")
    )
    assert found.most == 1
    assert "there are too many cuts of 2 tensors" in found.note
    assert tensors(found) == [{"c"}]


def test_why_there_is_none_is_said() -> None:
    one = find_cuts(flow('<ir_version: 8, opset_import: ["": 17]> one (float[4] x) => (float[4] y) { y = Relu (x) }'))
    assert not one.found
    assert "fewer than two nodes" in one.note
    lines = [f"a{i} = Relu (x)" for i in range(6)]
    wide = find_cuts(
        flow(f"""<ir_version: 8, opset_import: ["": 17]>
        wide (float[1, 4] x) => (float[1, 24] y) {{
            b = Relu (x)
            {chr(10).join(line.replace("(x)", "(b)").replace("Relu", "Tanh") for line in lines)}
            y = Concat <axis = 1> ({", ".join(f"a{i}" for i in range(6))})
        }}"""),
        most=3,
    )
    assert tensors(wide)[0] == {"b"}
    several = " ".join(f"r{i} = Relu (x{i})" for i in range(4))
    inputs = ", ".join(f"float[1, 4] x{i}" for i in range(4))
    none = find_cuts(
        flow(f"""<ir_version: 8, opset_import: ["": 17]>
        sum ({inputs}) => (float[1, 4] y) {{ {several} y = Sum (r0, r1, r2, r3) }}"""),
        most=3,
    )
    assert not none.found
    assert "has 4; allow that many (--most 4)" in none.note
