from __future__ import annotations

import pytest
from onnx import helper

from onnxprune.errors import PassError
from onnxprune.ir.model import load
from onnxprune.passes.inline_functions import InlineFunctions
from onnxprune.passes.manager import Check, PassManager
from onnxprune.passes.remove_unused import RemoveUnused

GRAPH = "g (float[2] x) => (float[2] y) {{ t = my.F(x)  y = Add(t, w) }}".replace("{{", "{").replace("}}", "}")
FUNCTIONS = """
<domain: "my", opset_import: ["": {opset}, "my": 1]> F (a) => (b) {{ c = my.G(a)  b = Abs(c) }}
<domain: "my", opset_import: ["": {opset}]> G (a) => (b) {{ w = Neg(a)  b = Neg(w) }}
"""


@pytest.mark.parametrize("opset", [17, 13])
def test_functions_are_inlined(build, apply, opset) -> None:
    model = build(GRAPH, weights={"w": [1.0, 2.0]}, functions=FUNCTIONS.format(opset=opset)).edit()
    model.weights["w"] = model.weights["w"].with_array(model.weights["w"].array.astype("float32"))
    model.skeleton.metadata_props.add(key="k", value="v")
    before = model.finish()
    # onnx.checker does not let a model have functions of another opset.
    after = apply(InlineFunctions(), before, Check.EQUALITY if opset == 17 else Check.NONE)
    assert [node.op_type for node in after.graph.node] == ["Neg", "Neg", "Abs", "Add"]
    assert not after.skeleton.functions
    assert after.weights["w"] is before.weights["w"]
    assert after.skeleton.metadata_props[0].value == "v"
    assert "w" not in {name for node in after.graph.node for name in node.output}


def test_nodes_keep_their_metadata(build) -> None:
    draft = build("g (float[2] x) => (float[2] y) { y = my.G(x) }", functions=FUNCTIONS.format(opset=17)).edit()
    draft.skeleton.functions[1].node[0].metadata_props.add(key="k", value="v")
    after = InlineFunctions()(draft.finish()).model
    assert after.graph.node[0].metadata_props[0].value == "v"


def test_domains_of_functions_are_imported(build) -> None:
    node = helper.make_node("Custom", ["a"], ["b"], domain="com.example")
    function = helper.make_function(
        "my", "F", ["a"], ["b"], [node], [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 4)]
    )
    draft = build("g (float[2] x) => (float[2] y) { y = my.F(x) }").edit()
    draft.skeleton.functions.append(function)
    after = InlineFunctions()(draft.finish()).model
    assert after.graph.node[0].op_type == "Custom"
    assert after.opset("com.example") == 4


def test_without_functions_nothing_happens(build, unchanged) -> None:
    unchanged(InlineFunctions(), build("g (float[2] x) => (float[2] y) { y = Relu(x) }"))


def test_a_failure_says_so(build) -> None:
    cyclic = '<domain: "my", opset_import: ["": 17, "my": 1]> F (a) => (b) { b = my.F(a) }'
    proto = build("g (float[2] x) => (float[2] y) { y = my.F(x) }", functions=cyclic).to_proto()
    with pytest.raises(PassError, match="functions"):
        InlineFunctions()(load(proto))


def test_functions_of_an_opset_that_differs(build, apply) -> None:
    old = '<domain: "my", opset_import: ["": 11]> F (a) => (b) { b = Squeeze <axes = [0]> (a) }'
    model = build("g (float[1, 2] x) => (float[2] y) { t = my.F(x)  y = Neg(t) }", functions=old)
    after = apply(InlineFunctions(), model, Check.NONE)
    squeeze = next(node for node in after.graph.node if node.op_type == "Squeeze")
    assert len(squeeze.input) == 2  # as of opset 13
    PassManager([RemoveUnused()], Check.RUNTIME).run(after)
