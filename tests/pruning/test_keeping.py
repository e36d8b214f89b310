"""Keeping only some classes: exact for these, and what only made the others is gone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnxprune import Model, keep, load
from onnxprune.errors import UsageError, VerificationError
from onnxprune.ir.provenance import steps_of
from onnxprune.passes.manager import PassManager
from onnxprune.pruning import keeping
from onnxprune.pruning.labels import Selection, class_names, words_of
from onnxprune.pruning.passes import Keep
from tests.cli.support import done_json

NAMES = {0: "ankle boot", 1: "bag", 2: "coat", 3: "dress", 4: "pullover"}


def model_of(
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, tuple[int, ...]],
    output: tuple[str, Sequence[int | str]],
    names: object = None,
    shape: Sequence[int | str] = ("N", 3, 8, 8),
) -> ModelProto:
    rng = np.random.default_rng(0)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])],
        [numpy_helper.from_array(rng.normal(size=s).astype(np.float32), name) for name, s in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if names is not None:
        model.metadata_props.add(key="names", value=str(names))
    onnx.checker.check_model(model)
    return model


def classifier(ending: str = "", names: object = NAMES) -> ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("Gemm", ["d", "v", "u"], ["logits"], transB=1),
    ]
    if ending:
        nodes.append(helper.make_node(ending, ["logits"], ["y"]))
    weights = {"w": (6, 3, 3, 3), "v": (5, 6), "u": (5,)}
    return model_of(nodes, weights, ("y" if ending else "logits", ("N", 5)), names)


def detector() -> ModelProto:
    """Two scales; boxes and classes of one come from one Conv, as YOLO has them, and those of the other from two."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["f"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["f", "w1"], ["h1"]),
        helper.make_node("Reshape", ["h1", "flat9"], ["r1"]),
        helper.make_node("MaxPool", ["f"], ["g"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["g", "w2"], ["boxes2"]),
        helper.make_node("Conv", ["g", "w3"], ["classes2"]),
        helper.make_node("Concat", ["boxes2", "classes2"], ["h2"], axis=1),
        helper.make_node("Reshape", ["h2", "flat9"], ["r2"]),
        helper.make_node("Concat", ["r1", "r2"], ["r"], axis=2),
        helper.make_node("Split", ["r", "parts"], ["boxes", "classes"], axis=1),
        helper.make_node("Sigmoid", ["classes"], ["scores"]),
        helper.make_node("Concat", ["boxes", "scores"], ["y"], axis=1),
    ]
    weights = {"w": (8, 3, 3, 3), "w1": (9, 8, 1, 1), "w2": (4, 8, 1, 1), "w3": (5, 8, 1, 1)}
    model = model_of([], weights, ("x", (1, 3, 8, 8)), NAMES, (1, 3, 8, 8))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 9, 80)))
    model.graph.node.extend(nodes)
    for name, value in (("flat9", [1, 9, -1]), ("parts", [4, 5])):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    onnx.checker.check_model(model)
    return model


def run(model: ModelProto | Model, batch: int = 2) -> np.ndarray:
    proto = model if isinstance(model, ModelProto) else model.to_proto()
    x = np.random.default_rng(1).normal(size=(batch, 3, 8, 8)).astype(np.float32)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, {"x": x})[0]
    return result


def test_logits_are_the_originals() -> None:
    made = keep(classifier(), classes=["dress", 1])
    assert np.allclose(run(made.model), run(classifier())[:, [1, 3]], rtol=1e-6, atol=1e-7)
    assert made.model.weights["v"].shape == (2, 6)
    assert [node.op_type for node in made.model.graph.node][-1] == "Gemm"
    assert class_names(made.model) == ("bag", "dress")
    assert made.model.graph.output[0].type.tensor_type.shape.dim[1].dim_value == 2
    assert made.model.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert made.certificate is not None
    assert made.certificate.passed
    assert [step["step"] for step in steps_of(made.model)] == ["keep"]


@pytest.mark.parametrize("ending", ["Softmax", "LogSoftmax"])
def test_probabilities_are_shares_of_what_is_kept(ending: str) -> None:
    made = keep(classifier(ending), classes=[0, 2, 4])
    whole = np.exp(run(classifier(ending))) if ending == "LogSoftmax" else run(classifier(ending))
    shares = whole[:, [0, 2, 4]] / whole[:, [0, 2, 4]].sum(axis=1, keepdims=True)
    given = run(made.model)
    assert np.allclose(np.exp(given) if ending == "LogSoftmax" else given, shares, rtol=1e-5)
    assert made.kept[0].renormalised == ending
    assert ending in made.kept[0].words
    assert made.model.weights["v"].shape == (3, 6)


def test_boxes_stay_where_classes_go() -> None:
    made = keep(detector(), classes=["bag", "pullover"])
    assert np.allclose(run(made.model, 1), run(detector(), 1)[:, [0, 1, 2, 3, 5, 8]], rtol=1e-6, atol=1e-6)
    shapes = {name: made.model.weights[name].shape[0] for name in ("w", "w1", "w2", "w3")}
    assert shapes == {"w": 8, "w1": 6, "w2": 4, "w3": 2}
    assert made.kept[0].left == 0


def test_positions_of_any_axis() -> None:
    made = keep(detector(), positions=["y[1]=0,3,5-8"])
    assert np.allclose(run(made.model, 1), run(detector(), 1)[:, [0, 3, 5, 6, 7, 8]], rtol=1e-6, atol=1e-6)
    # Without the whole box nobody knows which positions are classes.
    assert class_names(made.model) == tuple(NAMES.values())


def test_what_cannot_go_is_said() -> None:
    model = classifier()
    model.graph.node[-1].output[0] = "raw"
    model.graph.node.append(helper.make_node("CumSum", ["raw", "one"], ["logits"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array(1), "one"))
    made = keep(model, classes=[1])
    assert made.kept[0].left == 4
    assert "CumSum" in made.kept[0].words
    assert np.allclose(run(made.model), run(model)[:, [1]], rtol=1e-6)


def test_a_wrong_result_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    right = keeping._without_gathers

    def wrong(model: Model, places: Sequence[keeping._Place]) -> Model:
        draft = right(model, places).edit()
        weight = draft.weights.pop("v")
        draft.add_weight("v", weight.array[::-1].copy())
        return draft.finish()

    monkeypatch.setattr(keeping, "_without_gathers", wrong)
    with pytest.raises(VerificationError, match="is not what the original gives"):
        keep(classifier(), classes=[0, 1])


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({}, "say what to keep"),
        ({"classes": [5]}, "no class 5: the model has 5"),
        ({"classes": ["dres"]}, "did you mean dress"),
        ({"positions": ["y[1]=0"]}, "no output 'y'"),
        ({"positions": ["logits[2]=0"]}, "no axis 2"),
        ({"positions": ["logits[1]=7"]}, "no position 7"),
        ({"positions": ["logits[0]=0"]}, "follows the input's shape"),
        ({"positions": ["logits=0"]}, "OUTPUT"),
        ({"positions": ["logits[1]=3-1"]}, "no range"),
        ({"positions": ["logits[1]=0", "logits[1]=1"]}, "chosen twice"),
    ],
)
def test_bad_requests(how: dict[str, list[str]], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        keep(classifier(), **how)  # type: ignore[arg-type]


def test_without_names_only_numbers_and_plain_scores() -> None:
    assert keep(classifier(names=None), classes=[1]).kept[0].selection == Selection("logits", 1, (1,))
    with pytest.raises(UsageError, match="does not name its classes"):
        keep(classifier(names=None), classes=["dress"])
    model = detector()
    del model.metadata_props[:]
    with pytest.raises(UsageError, match="no output looks like scores"):
        keep(model, classes=[1])


def test_words() -> None:
    assert words_of("0,5-7, dog ") == ["0", "5", "6", "7", "dog"]
    assert words_of("1-2,a, b", ("1-2", "a, b")) == ["1-2", "a", "b"]
    assert words_of("a, b", ("1-2", "a, b")) == ["a, b"]


def test_command_and_pass(tmp_path: Path) -> None:
    source, result, names = tmp_path / "m.onnx", tmp_path / "k.onnx", tmp_path / "names.txt"
    onnx.save(classifier(names=None), source)
    names.write_text("\n".join(NAMES.values()))
    told = done_json("keep", source, "-o", result, "--classes", "bag,dress", "--names", names, "--json")
    assert told["kept"][0]["positions"] == [1, 3]
    assert load(result).weights["v"].shape == (2, 6)
    by_pass = PassManager([Keep(classes=[1, 3])])(load(source)).model
    assert by_pass.weights["v"].shape == (2, 6)


def test_what_hands_positions_on_may_stand_behind_a_softmax() -> None:
    model = classifier("Softmax")
    model.graph.node[-1].output[0] = "p"
    model.graph.node.append(helper.make_node("Neg", ["p"], ["y"]))
    made = keep(model, classes=[0, 2, 4])
    whole = run(model)[:, [0, 2, 4]]
    assert np.allclose(run(made.model), -whole / whole.sum(axis=1, keepdims=True), rtol=1e-5)
    assert made.kept[0].renormalised == "Softmax"


def two_heads(ending: str = "") -> ModelProto:
    """Classes 0 to 2 of one branch, 3 and 4 of another."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["f"], pads=[1, 1, 1, 1])]
    for head in "ab":
        nodes += [
            helper.make_node("Conv", ["f", f"w{head}"], [f"h{head}"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"h{head}"], [f"r{head}"]),
            helper.make_node("GlobalAveragePool", [f"r{head}"], [f"g{head}"]),
            helper.make_node("Flatten", [f"g{head}"], [f"d{head}"]),
            helper.make_node("Gemm", [f"d{head}", f"v{head}"], [f"l{head}"], transB=1),
        ]
    nodes.append(helper.make_node("Concat", ["la", "lb"], ["logits"], axis=1))
    nodes += [helper.make_node(ending, ["logits"], ["y"])] if ending else []
    weights = {"w": (6, 3, 3, 3), "wa": (6, 6, 3, 3), "wb": (6, 6, 3, 3), "va": (3, 6), "vb": (2, 6)}
    return model_of(nodes, weights, ("y" if ending else "logits", ("N", 5)), NAMES)


@pytest.mark.parametrize("ending", ["", "Softmax", "Sigmoid"])
@pytest.mark.parametrize(("positions", "convs"), [([0, 2], 2), ([3, 4], 2), ([4], 2), ([4, 0], 3), ([2, 1], 2)])
def test_a_branch_that_nobody_reads_goes_with_all_that_fed_it(ending: str, positions: list[int], convs: int) -> None:
    output = "y" if ending else "logits"
    done = keep(two_heads(ending), positions=[f"{output}[1]={','.join(map(str, positions))}"])
    nodes = [node.op_type for node in done.model.graph.node]
    assert nodes.count("Conv") == convs
    assert "Gather" not in nodes
    assert done.kept[0].left == 0
    x = np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32)
    was, is_ = (
        ort.InferenceSession(m.SerializeToString()).run(None, {"x": x})[0]
        for m in (two_heads(ending), done.model.proto)
    )
    was = was[:, sorted(positions)]
    np.testing.assert_allclose(is_, was / was.sum(axis=1, keepdims=True) if ending == "Softmax" else was, rtol=1e-5)


def test_a_branch_that_something_else_reads_stays() -> None:
    model = two_heads()
    model.graph.node.append(helper.make_node("Relu", ["logits"], ["all"]))
    model.graph.output.append(helper.make_tensor_value_info("all", TensorProto.FLOAT, ("N", 5)))
    done = keep(model, positions=["logits[1]=0,2"])
    assert sum(node.op_type == "Conv" for node in done.model.graph.node) == 3
