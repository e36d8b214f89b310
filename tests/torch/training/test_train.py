"""Training does what it says, by independent reckoning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from scipy.special import log_softmax, softmax

import onnxprune
from onnxprune.data import Data, read_data
from onnxprune.data.evaluation import evaluate
from onnxprune.errors import DataError, TrainingError, UsageError, VerificationError
from onnxprune.ir.model import Model
from onnxprune.ir.provenance import KEY, steps_of
from onnxprune.torch import Callback, Recipe, train
from onnxprune.torch.training.schedule import rate
from tests.helpers import GraphBuilder

from .support import CLASSES, Samples, assert_equal_weights, classifier, data, linear, squares, weights

MODELS = Path(__file__).parents[3] / "models"
QUICK = Recipe(epochs=4, lr=1e-2, batch_size=32)


def test_learns_and_keeps_the_graph() -> None:
    model, samples = classifier(), data()
    assert samples.test is not None
    before = evaluate(model, samples.test)
    result = train(model, samples, QUICK)
    after = evaluate(result.model, samples.test)
    assert before.accuracy is not None
    assert after.accuracy is not None
    assert before.accuracy < 0.6
    assert after.accuracy > 0.95
    assert result.model.skeleton == model.skeleton
    assert list(result.model.weights) == list(model.weights)
    assert result.test is not None
    assert result.test.accuracy == after.accuracy
    assert result.test.loss == pytest.approx(after.loss, rel=1e-4)
    assert [epoch.index for epoch in result.history] == [0, 1, 2, 3]
    assert not result.module.training


def test_sgd_on_a_linear_classifier_as_computed_by_hand() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((12, 5)).astype(np.float32), rng.integers(0, 3, 12)
    model = linear()
    recipe = Recipe(
        epochs=5, lr=0.2, batch_size=12, optimizer="sgd", weight_decay=0.05, schedule="constant", warm_up=0.0
    )
    result = train(model, Data(Samples({"x": x}, y), None), recipe)

    matrix, bias = (array.astype(np.float64) for array in weights(model).values())
    pace = [np.zeros_like(matrix), np.zeros_like(bias)]
    losses = []
    for _ in range(recipe.epochs):
        logits = x @ matrix.T + bias
        losses.append(-log_softmax(logits, axis=1)[np.arange(12), y].mean())
        slope = (softmax(logits, axis=1) - np.eye(3)[y]) / 12
        # Weights decay, the bias does not; Nesterov looks ahead along the new momentum.
        gradients = [slope.T @ x + 0.05 * matrix, slope.sum(0)]
        pace = [0.9 * old + new for old, new in zip(pace, gradients, strict=True)]
        matrix, bias = (
            value - 0.2 * (gradient + 0.9 * step)
            for value, gradient, step in zip((matrix, bias), gradients, pace, strict=True)
        )
    found = list(weights(result.model).values())
    np.testing.assert_allclose(found[0], matrix, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(found[1], bias, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose([epoch.train.loss for epoch in result.history], losses, rtol=2e-5)


@pytest.mark.parametrize("ending", ["Softmax", "LogSoftmax"])
def test_trains_on_logits_and_keeps_the_ending(ending: str) -> None:
    plain = train(classifier(), data(64), QUICK)
    ended = train(classifier(ending=ending), data(64), QUICK)
    assert_equal_weights(ended.model, plain.model)
    assert [epoch.train for epoch in ended.history] == [epoch.train for epoch in plain.history]
    assert ended.model.graph.node[-1].op_type == ending
    test = data(64).test
    assert test is not None
    assert evaluate(ended.model, test).loss == pytest.approx(evaluate(plain.model, test).loss, rel=1e-4)


def test_saturated_probabilities_still_teach() -> None:
    """Where float32 probabilities are exactly 0, only logits have a gradient."""
    model = linear(ending="Softmax")
    draft = model.edit()
    for name, weight in model.weights.items():
        draft.weights[name] = weight.with_array(weight.array * 1000)
    x = np.ones((4, 5), np.float32)
    wrong = np.full(4, int(np.argmin(1000 * (x[0] @ weights(model)["w_0"].T + weights(model)["v_1"]))))
    result = train(draft.finish(), Data(Samples({"x": x}, wrong), None), Recipe(epochs=1, batch_size=4))
    assert result.history[0].train.loss > 100
    assert any((weights(result.model)[n] != array * 1000).any() for n, array in weights(model).items())


def test_equal_seeds_give_equal_weights_and_leave_other_random_numbers_alone() -> None:
    model = classifier(dropout=True)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = train(model, data(64), QUICK)
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(6)
    assert_equal_weights(train(model, data(64), QUICK).model, first.model)
    other = train(model, data(64), replace(QUICK, seed=1))
    assert weights(other.model)["w_0"].tobytes() != weights(first.model)["w_0"].tobytes()
    assert not torch.are_deterministic_algorithms_enabled()


def test_rate_rises_and_falls() -> None:
    recipe = Recipe(lr=0.5, warm_up=0.2)
    rates = [rate(recipe, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.02)
    assert np.all(np.diff(rates[:21]) > 0)
    assert rates[20] == 0.5
    assert rates[60] == pytest.approx(0.25)
    assert 0 < rates[-1] < 0.001
    assert np.all(np.diff(rates[20:]) < 0)
    constant = Recipe(lr=0.5, warm_up=0.0, schedule="constant")
    assert {rate(constant, step, 100) for step in range(100)} == {0.5}


def test_values_are_learnt_by_squared_error() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((128, 5)).astype(np.float32)
    matrix = rng.standard_normal((5, 3)).astype(np.float32)
    samples = Samples({"x": x}, x @ matrix)
    result = train(linear(), Data(samples, samples), Recipe(epochs=60, lr=0.1, batch_size=32, weight_decay=0.0))
    np.testing.assert_allclose(weights(result.model)["w_0"], matrix.T, atol=5e-3)
    score = evaluate(result.model, samples)
    assert score.accuracy is None
    assert result.test is not None
    assert score.loss == pytest.approx(result.test.loss, rel=1e-3)


def test_a_teacher_alone_teaches_unlabelled_samples() -> None:
    teacher = train(classifier(seed=3), data(), QUICK).model
    student = classifier(ending="Softmax")
    unlabelled = Data(Samples(squares().inputs, None), None)
    result = train(student, unlabelled, replace(QUICK, epochs=6), teacher=teacher)
    accuracy = evaluate(result.model, squares(64, seed=1)).accuracy
    assert accuracy is not None
    assert accuracy > 0.9
    with pytest.raises(DataError, match="no labels"):
        train(student, unlabelled, QUICK)


def test_distillation_mixes_both_losses() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((8, 5)).astype(np.float32), rng.integers(0, 3, 8)
    student, tutor = linear(), linear()
    draft = tutor.edit()
    draft.weights["w_0"] = tutor.weights["w_0"].with_array(rng.standard_normal((3, 5)).astype(np.float32))
    tutor = draft.finish()
    recipe = Recipe(epochs=1, batch_size=8, distill=0.3, temperature=2.0)
    found = train(student, Data(Samples({"x": x}, y), None), recipe, teacher=tutor).history[0].train.loss

    logits, wanted = (x @ weights(m)["w_0"].T + weights(m)["v_1"] for m in (student, tutor))
    own = -log_softmax(logits, axis=1)[np.arange(8), y].mean()
    p, log_q = softmax(wanted / 2, axis=1), log_softmax(logits / 2, axis=1)
    divergence = (p * (np.log(p) - log_q)).sum(1).mean()
    assert found == pytest.approx(0.7 * own + 0.3 * 4 * divergence, rel=1e-5)


def test_a_teacher_of_other_classes_is_refused() -> None:
    x = np.zeros((4, 5), np.float32)
    samples = Data(Samples({"x": x}, np.zeros(4, np.int64)), None)
    with pytest.raises(TrainingError, match="use a teacher with the same classes"):
        train(linear(), samples, Recipe(epochs=1), teacher=linear(outputs=7))


def test_stops_early_and_keeps_the_best() -> None:
    recipe = Recipe(epochs=40, lr=3e-2, batch_size=32, patience=2)
    samples = data(64)
    result = train(classifier(), samples, recipe)
    scores = [epoch.test.accuracy for epoch in result.history if epoch.test is not None]
    assert len(result.history) < 40
    assert result.kept == int(np.argmax(scores))
    assert len(scores) == result.kept + 3
    assert samples.test is not None
    assert evaluate(result.model, samples.test).accuracy == scores[result.kept]


def test_a_loss_that_is_not_finite_stops() -> None:
    samples = squares(64)
    samples.inputs["x"][40, 0, 0, 0] = np.nan
    with pytest.raises(TrainingError, match=r"the loss is nan at step \d+: .*nothing was written"):
        train(classifier(), Data(samples, None), QUICK)


@pytest.mark.parametrize("kind", ["cross-entropy", "mse"])
def test_one_logit_tells_two_classes_apart(kind: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((256, 5)).astype(np.float32)
    y = (x[:, 0] > x[:, 1]).astype(np.int64)
    samples = Samples({"x": x}, y if kind == "cross-entropy" else y.astype(np.float32))
    model = linear(outputs=1, ending="Sigmoid")
    result = train(model, Data(samples, samples), Recipe(epochs=20, lr=5e-2, batch_size=64))
    probability = 1 / (1 + np.exp(-(x @ weights(result.model)["w_0"].T + weights(result.model)["v_1"])[:, 0]))
    assert ((probability > 0.5) == y).mean() > 0.97
    assert result.model.graph.node[-1].op_type == "Sigmoid"
    score = evaluate(result.model, samples)
    if kind == "cross-entropy":
        assert score.accuracy == ((probability > 0.5) == y).mean()
        assert score.loss == pytest.approx(-np.log(np.where(y == 1, probability, 1 - probability)).mean(), rel=1e-4)
    else:
        assert score.loss == pytest.approx(np.square(probability - y).mean(), rel=1e-4)


def test_a_file_for_one_image_is_trained_in_batches() -> None:
    free, fixed = (train(classifier(batch=batch), data(64), QUICK) for batch in ("n", 1))
    # An initialiser more shifts the names that count up.
    for one, other in zip(weights(fixed.model).values(), weights(free.model).values(), strict=True):
        assert one.tobytes() == other.tobytes()
    assert fixed.model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    test = data(64).test
    assert test is not None
    accuracy = evaluate(free.model, test).accuracy
    assert evaluate(fixed.model, test).accuracy == accuracy


def test_from_scratch_forgets_the_weights() -> None:
    recipe = replace(QUICK, start="from-scratch")
    one = train(classifier(seed=0), data(64), recipe)
    other = train(classifier(seed=9), data(64), recipe)
    assert_equal_weights(one.model, other.model)


@pytest.mark.parametrize("start", ["from-scratch", "fine-tune"])
def test_restored_batchnorm_is_folded_again_and_others_are_not(start: str) -> None:
    model = classifier(norm=True)
    kinds = [node.op_type for node in model.graph.node]
    result = train(model, data(), Recipe(epochs=4, lr=1e-2, batch_size=32, start=start, restore_batchnorm=True))  # type: ignore[arg-type]
    assert [node.op_type for node in result.model.graph.node] == kinds
    assert sum(type(part).__name__ == "BatchNorm2d" for part in result.module.modules()) == 2
    test = data().test
    assert test is not None
    accuracy = evaluate(result.model, test).accuracy
    assert accuracy is not None
    assert accuracy > 0.9


def test_mixed_precision_learns() -> None:
    result = train(classifier(), data(), replace(QUICK, precision="bfloat16"))
    assert result.test is not None
    assert result.test.accuracy is not None
    assert result.test.accuracy > 0.9
    with pytest.raises(TrainingError, match="float16 needs a GPU"):
        train(classifier(), data(), replace(QUICK, precision="float16"), device="cpu")


def test_callbacks_hear_of_every_step() -> None:
    heard: list[object] = []

    class Listening(Callback):
        def stepped(self, step: object) -> None:
            heard.append(step)

        def epoch_ended(self, epoch: object) -> None:
            heard.append(epoch)

    result = train(classifier(), data(64), replace(QUICK, epochs=2), callbacks=[Listening()])
    assert [type(event).__name__ for event in heard] == ["Step", "Step", "Epoch", "Step", "Step", "Epoch"]
    assert heard[2], heard[5] == result.history


def paddle_like() -> Model:
    """As Paddle2ONNX writes: weights in Constant nodes, a Reshape driven by Shape, a bias of its own, Softmax."""
    rng = np.random.default_rng(0)
    nodes = []

    def constant(name: str, values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> str:
        nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(values, name)))
        return name

    def weight(name: str, *shape: int) -> str:
        return constant(name, (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32))

    def vector(name: str, value: float) -> str:
        return constant(name, np.full(16, value, np.float32))

    norm = [vector(f"batch_norm_0.{key}", value) for key, value in (("w", 1), ("b", 0), ("mean", 0), ("var", 1))]
    zero, one = constant("zero", np.array([0])), constant("one", np.array([1]))
    weight("conv2d_0.w", 16, 1, 3, 3)
    weight("linear_0.w", 16, CLASSES)
    constant("linear_0.b", np.zeros(CLASSES, np.float32))
    rest = constant("rest", np.array([-1]))
    nodes += [
        helper.make_node("Conv", ["x", "conv2d_0.w"], ["conv2d_0.tmp_0"], name="Conv.0", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["conv2d_0.tmp_0", *norm], ["batch_norm_0.tmp_2"], name="BN.0"),
        helper.make_node("HardSigmoid", ["batch_norm_0.tmp_2"], ["gate"], name="HardSigmoid.0", alpha=1 / 6),
        helper.make_node("Mul", ["batch_norm_0.tmp_2", "gate"], ["hard_swish_0.tmp_0"], name="Mul.0"),
        helper.make_node(
            "MaxPool", ["hard_swish_0.tmp_0"], ["pool"], name="Pool.0", kernel_shape=[4, 4], strides=[4, 4]
        ),
        helper.make_node("Transpose", ["pool"], ["moved"], name="Transpose.0", perm=[0, 2, 3, 1]),
        helper.make_node("ReduceMax", ["moved"], ["most"], name="ReduceMax.0", axes=[2], keepdims=0),
        helper.make_node("Slice", ["most", zero, one, one], ["upper"], name="Slice.0"),
        helper.make_node("Shape", ["upper"], ["shape"], name="Shape.0"),
        helper.make_node("Slice", ["shape", zero, one], ["batch"], name="Slice.1"),
        helper.make_node("Concat", ["batch", rest], ["target"], name="Concat.0", axis=0),
        helper.make_node("Reshape", ["upper", "target"], ["flat"], name="Reshape.0"),
        helper.make_node("MatMul", ["flat", "linear_0.w"], ["linear_0.tmp_0"], name="MatMul.0"),
        helper.make_node("Add", ["linear_0.tmp_0", "linear_0.b"], ["linear_0.tmp_1"], name="Add.0"),
        helper.make_node("Softmax", ["linear_0.tmp_1"], ["softmax_0.tmp_0"], name="Softmax.0", axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "Model from PaddlePaddle.",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["DynamicDimension.0", 1, 8, 8])],
        [helper.make_tensor_value_info("softmax_0.tmp_0", TensorProto.FLOAT, ["DynamicDimension.0", CLASSES])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7, producer_name="")
    onnx.checker.check_model(proto)
    return onnxprune.load(proto)


def test_a_file_in_the_style_of_paddle() -> None:
    source = paddle_like()
    pruned = onnxprune.compress(source, mode="flops", reduce=0.4).model
    # The model sees the upper half: class 0 is bright there, class 2 is not.
    samples = squares(256)
    assert samples.targets is not None
    upper = samples.targets % 2 == 0
    chosen = Samples({"x": samples.inputs["x"][upper]}, samples.targets[upper])
    before = evaluate(pruned, chosen)
    result = train(pruned, Data(chosen, None), replace(QUICK, epochs=8, lr=3e-2))
    after = evaluate(result.model, chosen)
    assert before.accuracy is not None
    assert after.accuracy is not None
    assert after.accuracy > 0.9 > before.accuracy
    assert [node.op_type for node in result.model.graph.node] == [node.op_type for node in pruned.graph.node]
    assert result.model.weights["conv2d_0.w"].shape[0] < 16


@pytest.mark.zoo
def test_a_file_of_paddle() -> None:
    """The text direction classifier of RapidOCR: a MobileNetV3 that ends in Softmax over two classes."""
    from tests.zoo.sources import UnavailableError, fetch

    try:
        source = onnxprune.load(fetch("rapidocr_cls"))
    except UnavailableError as error:
        pytest.skip(str(error))
    pruned = onnxprune.compress(
        source, mode="flops", reduce=0.3, input_shapes={source.graph.input[0].name: (1, 3, 48, 192)}
    ).model
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 16)
    images = rng.normal(0, 0.3, (16, 3, 48, 192)).astype(np.float32)
    images[labels == 1, :, :24] += 0.7
    images[labels == 0, :, 24:] += 0.7
    samples = Samples({source.graph.input[0].name: images}, labels)
    result = train(pruned, Data(samples, None), Recipe(epochs=6, lr=3e-3, batch_size=8))
    assert result.history[-1].train.loss < 0.5 * result.history[0].train.loss
    assert [node.name for node in result.model.graph.node] == [node.name for node in pruned.graph.node]


def two_heads() -> Model:
    g = GraphBuilder(17)
    x = g.input("x", ("n", 5))
    g.output(g.op("Gemm", x, g.weight(3, 5), transB=1), ("n", 3))
    g.output(g.op("Gemm", x, g.weight(2, 5), transB=1), ("n", 2))
    return onnxprune.load(g.model())


def test_one_of_several_outputs_is_trained() -> None:
    model = two_heads()
    names = [value.name for value in model.graph.output]
    samples = Data(Samples({"x": np.eye(5, dtype=np.float32)}, np.array([0, 1, 0, 1, 0])), None)
    with pytest.raises(TrainingError, match="say which to train on"):
        train(model, samples, Recipe(epochs=1))
    result = train(model, samples, Recipe(epochs=1, output=names[1], weight_decay=0.0))
    one, two = weights(model)
    assert weights(result.model)[one].tobytes() == weights(model)[one].tobytes()
    assert (weights(result.model)[two] != weights(model)[two]).any()


def test_data_that_does_not_fit() -> None:
    model = classifier()
    images = squares(16).inputs["x"]

    def refused(targets: np.ndarray[tuple[int, ...], np.dtype[np.generic]], match: str, loss: str = "auto") -> None:
        with pytest.raises(DataError, match=match):
            train(model, Data(Samples({"x": images}, targets), None), Recipe(epochs=1, loss=loss))  # type: ignore[arg-type]

    refused(np.full(16, CLASSES), r"label 4 is outside of the model's 4 classes \(0 to 3\)")
    refused(np.full(16, -1), "label -1 is outside")
    refused(np.zeros((16, 2), np.int64), "do not fit the model's output")
    refused(np.zeros((16, 2), np.float32), "labels have shape")
    refused(np.zeros((16, 4), np.float32), "needs class numbers", "cross-entropy")
    labels = np.zeros(16, np.int64)
    with pytest.raises(DataError, match="nothing for the model's input 'x'"):
        train(model, Data(Samples({"other": images}, labels), None), Recipe(epochs=1))
    with pytest.raises(DataError, match=r"cannot be run on a batch of x \(16, 1, 6, 6\)"):
        train(model, Data(Samples({"x": images[:, :, :6, :6].copy()}, labels), None), Recipe(epochs=1))
    with pytest.raises(DataError, match="there are no samples"):
        train(model, Data(Samples({"x": images[:0]}, labels[:0]), None), Recipe(epochs=1))


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"lr": -1.0}, "lr must be a number above 0"),
        ({"lr": float("nan")}, "lr must be a number above 0"),
        ({"optimizer": "lion"}, "choose one of adamw, adam, sgd"),
        ({"warm_up": 1.5}, "warm_up must be between 0 and 1"),
        ({"weight_decay": -0.1}, "weight_decay must not be negative"),
    ],
)
def test_recipes_outside_their_range(values: dict[str, float], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        Recipe(**values)  # type: ignore[arg-type]


def test_a_written_model_that_differs_is_not_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxprune.torch.training import preparation

    monkeypatch.setattr(preparation, "write_back", lambda module, model: model)
    with pytest.raises(VerificationError, match="differs in onnxruntime from PyTorch"):
        train(classifier(), data(64), QUICK)


@pytest.mark.parametrize("name", ["vgg_keras_tensorflow", "depthwise_keras_tensorflow", "dense_dynamo"])
def test_files_of_other_exporters_are_pruned_trained_and_written_back(name: str, tmp_path: Path) -> None:
    """Keras: channels last, Softmax or Dense heads; the DenseNet has a fixed batch of one image."""
    source = onnxprune.load(MODELS / f"{name}.onnx")
    pruned = onnxprune.compress(source, mode="params", reduce=0.5).model
    sample = read_data(f"{MODELS / 'fashion_sample.npz'}?limit=128", pruned)
    before = evaluate(pruned, sample.train)
    result = train(pruned, Data(sample.train, None), Recipe(epochs=3, lr=3e-3, batch_size=32))
    result.model.save(tmp_path / "out.onnx")
    after = evaluate(tmp_path / "out.onnx", sample.train)
    assert after.loss < 0.7 * before.loss
    assert [node.name for node in result.model.graph.node] == [node.name for node in pruned.graph.node]
    kept = {entry.key: entry.value for entry in result.model.skeleton.metadata_props if entry.key != KEY}
    assert kept == {entry.key: entry.value for entry in pruned.skeleton.metadata_props if entry.key != KEY}
    assert [step["step"] for step in steps_of(result.model)] == ["prune", "train"]
