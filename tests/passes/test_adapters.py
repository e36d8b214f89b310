"""Models in the forms that others hold, and passes across libraries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnx_ir
import onnxruntime
import pytest
from onnx import ModelProto
from onnx_ir.passes import PassManager as IrManager
from onnx_ir.passes.common import RemoveUnusedNodesPass

import onnxprune
from onnxprune.errors import ModelError, PassError
from onnxprune.ir.model import load
from onnxprune.passes.adapters import IrPass, ProtoPass, to_onnx_ir
from onnxprune.passes.manager import Check, PassManager
from onnxprune.passes.pipeline import Step

VGG = Path(__file__).parents[2] / "models" / "vgg_torchscript.onnx"


def _outputs(proto: ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    feed = np.random.default_rng(0).standard_normal((1, 1, 28, 28)).astype(np.float32)
    return np.asarray(session.run(None, {image.name: feed})[0])


@pytest.mark.parametrize("form", ["path", "proto", "bytes", "ir", "graphsurgeon"])
def test_every_form_goes_in_and_the_same_comes_out(form: str) -> None:
    proto = onnx.load(VGG)
    source = {
        "path": lambda: VGG,
        "proto": lambda: proto,
        "bytes": VGG.read_bytes,
        "ir": lambda: onnx_ir.from_proto(proto),
        "graphsurgeon": lambda: gs.import_onnx(proto),
    }[form]()
    made = onnxprune.compress(source, reduce=0.5)
    wanted = onnxprune.compress(VGG, reduce=0.5)
    np.testing.assert_array_equal(_outputs(made.proto), _outputs(wanted.proto))
    back = {
        "bytes": lambda: ModelProto.FromString(made.model.to_bytes()),
        "ir": lambda: onnx_ir.to_proto(made.model.to_ir()),
        "graphsurgeon": lambda: gs.export_onnx(made.model.to_graphsurgeon()),
    }.get(form, lambda: made.proto)()
    np.testing.assert_array_equal(_outputs(back), _outputs(wanted.proto))


def test_nothing_is_lost_on_the_way_through_onnx_ir() -> None:
    proto = onnx.load(VGG)
    proto.metadata_props.add(key="names", value="a,b")
    proto.graph.node[0].doc_string = "the first"
    again = load(load(proto).to_ir()).to_proto()
    assert {p.key: p.value for p in again.metadata_props} == {p.key: p.value for p in proto.metadata_props}
    assert [n.doc_string for n in again.graph.node] == [n.doc_string for n in proto.graph.node]
    assert [(n.op_type, list(n.input), list(n.output)) for n in again.graph.node] == [
        (n.op_type, list(n.input), list(n.output)) for n in proto.graph.node
    ]
    assert again.ir_version == proto.ir_version


@pytest.mark.parametrize(
    ("source", "words"), [(b"nonsense", "not a valid ONNX model"), (3, "builtins.int is no model")]
)
def test_what_is_no_model(source: object, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        load(source)  # type: ignore[arg-type]


def _with_dead_node() -> onnxprune.Model:
    proto = onnx.load(VGG)
    proto.graph.node.append(onnx.helper.make_node("Relu", [proto.graph.node[0].output[0]], ["dead"], name="dead"))
    return load(proto)


def test_a_pass_of_onnx_ir_is_checked_by_our_manager() -> None:
    model = _with_dead_node()
    result = PassManager([IrPass(RemoveUnusedNodesPass())], Check.EQUALITY).run(model)
    assert result.modified
    assert "dead" not in {node.name for node in result.model.graph.node}
    assert not PassManager([IrPass(RemoveUnusedNodesPass())]).run(result.model).modified


def test_a_function_of_protos_is_checked_by_our_manager() -> None:
    def harmless(proto: ModelProto) -> ModelProto:
        proto.producer_name = "somebody"
        return proto

    def harmful(proto: ModelProto) -> ModelProto:
        weight = proto.graph.initializer[0]
        weight.CopyFrom(onnx.numpy_helper.from_array(2 * onnx.numpy_helper.to_array(weight), weight.name))
        return proto

    def failing(proto: ModelProto) -> ModelProto:
        raise RuntimeError("no way")

    model = load(VGG)
    assert PassManager([ProtoPass(harmless)], Check.EQUALITY).run(model).model.skeleton.producer_name == "somebody"
    with pytest.raises(PassError, match="pass harmful claims equality but"):
        PassManager([ProtoPass(harmful)], Check.EQUALITY).run(model)
    assert PassManager([ProtoPass(harmful, claims_equality=False)], Check.EQUALITY).run(model).modified
    with pytest.raises(PassError, match="pass failing: RuntimeError: no way"):
        PassManager([ProtoPass(failing)]).run(model)
    assert not PassManager([ProtoPass(lambda proto: proto, "same")]).run(model).modified


def test_our_passes_run_in_a_manager_of_onnx_ir() -> None:
    model = onnx_ir.from_proto(_with_dead_node().to_proto())
    ours = to_onnx_ir(Step("prune", {"reduce": 0.5}).make())
    result = IrManager([RemoveUnusedNodesPass(), ours])(model)
    wanted = onnxprune.compress(VGG, reduce=0.5)
    np.testing.assert_array_equal(_outputs(onnx_ir.to_proto(result.model)), _outputs(wanted.proto))


@pytest.mark.parametrize(("package", "function"), [("onnxsim", "simplify"), ("onnxslim", "slim")])
def test_simplifiers_of_others_are_checked_by_our_manager(package: str, function: str) -> None:
    simplifier = getattr(pytest.importorskip(package), function)

    def simplify(proto: ModelProto) -> ModelProto:
        made = simplifier(proto)
        return made[0] if isinstance(made, tuple) else made  # onnxsim also says whether it compared

    def harmful(proto: ModelProto) -> ModelProto:
        made = simplify(proto)
        weight = made.graph.initializer[0]
        weight.CopyFrom(onnx.numpy_helper.from_array(2 * onnx.numpy_helper.to_array(weight), weight.name))
        return made

    model = _with_dead_node()
    result = PassManager([ProtoPass(simplify, package)], Check.EQUALITY).run(model)
    assert len(result.model.graph.node) < len(model.graph.node)
    with pytest.raises(PassError, match=f"pass {package} claims equality but"):
        PassManager([ProtoPass(harmful, package)], Check.EQUALITY).run(model)
    pruned = onnxprune.compress(result.model, reduce=0.5)
    assert pruned.certificate
