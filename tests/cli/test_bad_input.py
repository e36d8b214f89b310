"""Bad input: one message that says what and what to do, nothing written, the input untouched."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from tests.cli.support import (
    MODELS,
    RESIDUAL,
    VGG,
    conv,
    done,
    external_without_data,
    model,
    node,
    refused,
    run,
    saved,
    two_convs,
)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "pruned.onnx"


def assert_refused(code: int, path: Path, output: Path, *words: str) -> None:
    """Neither ``analyze`` nor ``prune`` takes it, and ``prune`` writes nothing and leaves the input alone."""
    before = path.read_bytes() if path.is_file() else None
    message = refused(code, "prune", path, "-o", output, "--reduce", "0.3")
    for word in words:
        assert word in message
    assert not list(output.parent.iterdir())
    assert before is None or path.read_bytes() == before


def test_no_file(tmp_path: Path, output: Path) -> None:
    assert_refused(2, tmp_path / "nowhere.onnx", output, "nowhere.onnx does not exist", "check the path")


def test_folder(tmp_path: Path, output: Path) -> None:
    assert_refused(2, tmp_path, output, "is a folder", "give the .onnx file")


def test_empty_file(tmp_path: Path, output: Path) -> None:
    path = tmp_path / "empty.onnx"
    path.touch()
    assert_refused(2, path, output, "is empty")


@pytest.mark.parametrize("content", [b"just some text\n", bytes(range(255, 0, -1)) * 20])
def test_not_onnx(tmp_path: Path, output: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert_refused(2, path, output, "model.onnx", "not an ONNX")


def test_truncated(tmp_path: Path, output: Path) -> None:
    path = tmp_path / "half.onnx"
    path.write_bytes(RESIDUAL.read_bytes()[: RESIDUAL.stat().st_size // 2])
    assert_refused(2, path, output, "truncated", "again")


def test_missing_operand_fails_the_checker(tmp_path: Path, output: Path) -> None:
    broken = saved(tmp_path, model(node("Conv", ["x"], "y")))
    assert_refused(2, broken, output, "onnx.checker rejects", "Conv_y", "input size 1", "export the model again")


def test_dangling_tensor(tmp_path: Path, output: Path) -> None:
    broken = saved(tmp_path, model(node("Relu", ["z"], "y")))
    assert_refused(2, broken, output, "is incomplete: Relu 'Relu_y' reads 'z'", "export it again with its weights")


def test_weight_of_unknown_type(tmp_path: Path, output: Path) -> None:
    strange = two_convs()
    strange.graph.initializer[0].data_type = 99
    assert_refused(2, saved(tmp_path, strange), output, "'a.weight'", "element type 99", "update onnx")


def test_layer_without_channels(tmp_path: Path, output: Path) -> None:
    path = saved(tmp_path, model(conv("x", "a", 0, 3), node("Relu", ["a"], "b"), conv("b", "y", 4, 8)))
    assert_refused(1, path, output, "nothing can be pruned")


def test_nodes_out_of_order_fail_the_checker(tmp_path: Path, output: Path) -> None:
    broken = saved(tmp_path, model(node("Relu", ["z"], "y"), node("Neg", ["x"], "z")))
    assert_refused(2, broken, output, "onnx.checker rejects", "topologically sorted", "'z'")


def test_invalid_models_are_refused_by_the_library_too() -> None:
    for broken in (model(node("Conv", ["x"], "y")), model(conv("x", "a", 8, 3), node("Add", ["a", "z"], "y"))):
        for work in (onnxprune.analyze, lambda proto: onnxprune.compress(proto, reduce=0.3)):
            with pytest.raises(onnxprune.ModelError, match="export"):
                work(broken)


def test_model_that_onnxruntime_does_not_load(tmp_path: Path, output: Path) -> None:
    twins = two_convs()
    for twin in twins.graph.node:
        twin.name = "twin"
    message = "onnxruntime does not load the original model"
    assert_refused(1, saved(tmp_path, twins), output, message, "same node name", "nothing was written")


def test_no_layers(tmp_path: Path, output: Path) -> None:
    path = saved(tmp_path, model(node("Relu", ["x"], "y")))
    assert_refused(1, path, output, "nothing can be pruned", "no Conv")
    assert "there is nothing to prune" in done("analyze", path)


def test_every_layer_pinned(tmp_path: Path, output: Path) -> None:
    path = saved(tmp_path, model(conv("x", "y", 8, 3)))
    assert_refused(1, path, output, "every layer is pinned: conv_y (reaches graph output 'y')")


def test_missing_weights(tmp_path: Path, output: Path) -> None:
    assert_refused(2, external_without_data(tmp_path), output, "weights missing", "'weights.bin'", "beside the model")


@pytest.mark.parametrize("domain", ["com.acme", ""])
def test_unknown_operator_pins_and_is_listed(tmp_path: Path, output: Path, domain: str) -> None:
    mystery = node("Mystery", ["c"], "y", domain=domain)
    path = saved(tmp_path, model(conv("x", "a", 8, 3), node("Relu", ["a"], "b"), conv("b", "c", 4, 8), mystery))
    listing = done("analyze", path)
    assert "Not understood, and therefore pinned: operator" in listing
    assert "Mystery 'Mystery_y'" in listing
    # onnxruntime does not know the operator, so nothing can be proven; what can be done without proof is done.
    assert_refused(1, path, output, "Mystery", "--no-verify")
    done("prune", path, "-o", output, "--reduce", "0.3", "--no-verify")
    weights = {weight.name: weight.dims for weight in onnx.load(output).graph.initializer}
    assert weights["a.weight"][0] < 8
    assert weights["c.weight"][0] == 4


def test_control_flow_body(tmp_path: Path, output: Path) -> None:
    branches = {
        name: helper.make_graph(
            [node(op_type, ["a"], name)],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8, 8, 8])],
        )
        for name, op_type in (("then_branch", "Relu"), ("else_branch", "Neg"))
    }
    zero = numpy_helper.from_array(np.float32(0), "zero")
    proto = model(
        conv("x", "a", 8, 3),
        node("ReduceMax", ["x"], "most", keepdims=0),
        node("Greater", ["most", "zero"], "condition"),
        node("If", ["condition"], "b", **branches),
        conv("b", "c", 16, 8),
        node("Relu", ["c"], "d"),
        conv("d", "y", 4, 16),
        constants=[zero],
    )
    path = saved(tmp_path, proto)
    before = path.read_bytes()
    assert "Certificate passed" in done("prune", path, "-o", output, "--reduce", "0.3")
    assert path.read_bytes() == before


def test_quantised_model(tmp_path: Path, output: Path) -> None:
    constants = [
        numpy_helper.from_array(np.float32(0.1), "scale"),
        numpy_helper.from_array(np.uint8(0), "zero"),
        numpy_helper.from_array(np.int8(0), "weight_zero"),
        numpy_helper.from_array(np.ones((8, 3, 3, 3), np.int8), "first"),
        numpy_helper.from_array(np.ones((4, 8, 3, 3), np.int8), "second"),
    ]
    rest = ["scale", "weight_zero", "scale", "zero"]
    proto = model(
        node("QuantizeLinear", ["x", "scale", "zero"], "a"),
        node("QLinearConv", ["a", "scale", "zero", "first", *rest], "b", pads=[1, 1, 1, 1]),
        node("QLinearConv", ["b", "scale", "zero", "second", *rest], "c", pads=[1, 1, 1, 1]),
        node("DequantizeLinear", ["c", "scale", "zero"], "y"),
        constants=constants,
    )
    path = saved(tmp_path, proto)
    done("analyze", path)
    result = run("prune", path, "-o", output, "--reduce", "0.3")
    # Either is right: pruned and proven, or refused with the operators named.
    if result.exit_code:
        assert result.exit_code == 1
        assert "QLinearConv" in result.stderr
        assert not output.exists()
    else:
        assert "Certificate passed" in result.stdout


def test_unreachable_budget(tmp_path: Path, output: Path) -> None:
    path = saved(tmp_path, two_convs())
    message = refused(1, "prune", path, "-o", output, "--max-params", "10")
    assert "params cannot fall to 10" in message
    assert "the smallest reachable value is" in message
    assert not output.exists()


def plan_text(**entries: object) -> str:
    """A plan of nothing with entries that somebody edited."""
    return json.dumps({**onnxprune.Plan({}).to_dict(), **entries})


def test_plan_of_another_model(tmp_path: Path, output: Path) -> None:
    plan = tmp_path / "plan.json"
    onnxprune.plan(VGG, reduce=0.5).save(plan)
    message = refused(2, "apply", RESIDUAL, plan, "-o", output)
    assert "was the plan made for another model?" in message
    assert not output.exists()
    assert "another model" in refused(2, "verify", RESIDUAL, RESIDUAL, plan)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[1, 2]", "not an onnxprune plan"),
        ("{", "not valid JSON"),
        (None, "No such file"),
        (plan_text(settings=[]), "'settings' must map names to values"),
        (plan_text(after=None), "'after' must map names to values"),
        (plan_text(settings={"input_shapes": "1x28"}), '"input_shapes" must map input names to shapes'),
        (plan_text(settings={"input_shapes": {"image": 3}}), '"input_shapes" must map input names to shapes'),
        (plan_text(settings={"input_shapes": {"image": ["n"]}}), '"input_shapes" must map input names to shapes'),
        (plan_text(removed=[]), "'removed' must map tensor names"),
        (plan_text(removed={"head.weight": {"1": [10**30]}}), "cannot have a position 1000"),
        (plan_text(removed={"head.weight": {"01": [1]}}), "'01' is no dimension"),
        (plan_text(removed={"head.weight": {"one": [1]}}), "'removed' must map tensor names"),
        *(
            (plan_text(**{part: {"flops": value}}), f"'{part}' has")
            for part in ("before", "after")
            for value in ("many", None, True, [1])
        ),
        (
            plan_text(before={"flops": 1}).replace('"flops": 1}', '"flops": 1e999}'),
            "'before' has inf for 'flops', which is no number",
        ),
        (plan_text(before={"flops": float("nan")}), "NaN is no number"),
        (plan_text(settings={"reduce": float("inf")}), "Infinity is no number"),
        ("[" * 100_000, "nested deeper than 32 levels"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested deeper than 32 levels"),
        (plan_text(settings={"a": eval("[" * 60 + "]" * 60)}), "nested deeper than 32 levels"),
        (plan_text()[:-1] + ', "removed": {}}', "it gives 'removed' twice"),
        ("\ufeff" + plan_text(), "not valid JSON"),
    ],
)
def test_not_a_plan(tmp_path: Path, output: Path, content: str | None, words: str) -> None:
    plan = tmp_path / "plan.json"
    if content is not None:
        plan.write_text(content)
    assert words in refused(2, "apply", RESIDUAL, plan, "-o", output)
    assert not output.exists()


def test_inconsistent_plan(tmp_path: Path, output: Path) -> None:
    plan = onnxprune.plan(RESIDUAL, reduce=0.5)
    removed = dict(plan.removed)
    removed.pop(next(iter(removed)))
    path = tmp_path / "plan.json"
    onnxprune.Plan(removed).save(path)
    message = refused(2, "apply", RESIDUAL, path, "-o", output)
    assert "inconsistent" in message
    assert "onnxprune explain" in message


def test_a_fault_of_ours_is_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("onnxprune.analysis.analyzing.analyze", stumble)
    message = refused(1, "analyze", RESIDUAL)
    assert "unexpected ZeroDivisionError: oops" in message
    assert "please report it" in message


def test_a_weight_that_promises_more_than_memory_holds(tmp_path: Path, output: Path) -> None:
    # The shape inference of onnx made room for 2⁶³ values, and never came to an end.
    ends = numpy_helper.from_array(np.array([6], np.int64), "end")
    ends.dims[0] = 2**63 - 1
    constants = [ends, *(numpy_helper.from_array(np.array([v], np.int64), n) for n, v in (("start", 0), ("axis", 1)))]
    operands = ["a", "start", "end", "axis"]
    made = helper.make_node("Constant", [], ["end"], value=ends)
    for nodes, weights in (([], constants), ([made], constants[1:])):
        proto = model(
            *nodes, conv("x", "a", 8, 3), node("Slice", operands, "b"), conv("b", "y", 4, 6), constants=weights
        )
        assert_refused(2, saved(tmp_path, proto), output, "tensor 'end'", "does not have that many values")


@pytest.mark.parametrize("version", [-1, 2**31, 2**63 - 1])
def test_operator_sets_that_cannot_be(tmp_path: Path, output: Path, version: int) -> None:
    strange = two_convs()
    strange.opset_import[0].version = version
    assert_refused(2, saved(tmp_path, strange), output, f"imports version {version}")


def test_whose_fault_it_is(tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*_: object, **__: object) -> None:
        raise IndexError("oops")

    monkeypatch.setattr("onnxprune.analysis.analyzing.infer_shapes", stumble)
    assert "unexpected IndexError: oops" in refused(1, "analyze", saved(tmp_path, two_convs(), "good.onnx"))
    # onnx.checker takes a vector for the weight of a convolution.
    broken = two_convs()
    broken.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones(8, np.float32), "a.weight"))
    assert_refused(2, saved(tmp_path, broken), output, "contradicts itself", "export it again")


def test_what_was_probably_meant_is_said(tmp_path: Path) -> None:
    near = VGG.with_name("vgg_torchscrip.onnx")
    assert f"did you mean {VGG}?" in refused(2, "analyze", near)
    assert "did you mean openvino?" in refused(2, "bench", VGG, "--runtime", "openvno")
    prune = ("prune", VGG, "-o", tmp_path / "o.onnx", "--reduce", 0.5)
    assert "did you mean /features/features.0/Conv" in refused(2, *prune, "--exclude", "featurs.0")
    assert "did you mean holdout?" in refused(2, *prune, "--calibrate", f"{MODELS / 'fashion_sample.npz'}?holdot=0.5")
