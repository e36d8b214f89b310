"""What the certificate notices, what it does not mistake for a fault, and what it says of what it cannot notice."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper
from typer.testing import CliRunner

import onnxprune
from onnxprune.cli.app import app
from onnxprune.ir.comparing import compare
from onnxprune.ir.model import Model
from onnxprune.pruning.certificate import TOLERANCE, Unwitnessed
from onnxprune.pruning.certificate.rehearsal import Rehearsal
from onnxprune.pruning.certificate.verifying import certifier_of, usual_inputs
from onnxprune.pruning.certificate.witnesses import Witnesses
from onnxprune.pruning.mutations import Kind, mutations
from onnxprune.pruning.mutations.power import measure_power

_MODELS = ("residual_torchscript", "depthwise_dynamo", "dense_torchscript", "vgg_keras_torch", "unet_keras_tensorflow")


def parsed(text: str, seed: int = 0, **weights: tuple[int, ...]) -> ModelProto:
    """A model in onnx's text form, with random weights of these shapes."""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(seed)
    for name, shape in weights.items():
        values = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def changed(model: Model, name: str, edit: Callable[[np.ndarray], None]) -> Model:
    """A copy with another value of one weight."""
    draft = model.edit()
    array = draft.weights[name].array.copy()
    edit(array)
    draft.weights[name] = draft.weights[name].with_array(array)
    return draft.finish()


def halved(model: ModelProto | str) -> tuple[onnxprune.Model, onnxprune.Plan, onnxprune.Model]:
    """A model, a plan that takes half of its channels, and the result."""
    source = onnxprune.load(model)
    plan = onnxprune.plan(source, channels=0.5)
    return source, plan, onnxprune.apply(source, plan)


def swap_first(array: np.ndarray) -> None:
    array[[0, 1]] = array[[1, 0]]


# A fault deep inside is covered by a bias a thousand times as large, and by a skip.
DROWNING = """<ir_version: 8, opset_import: ["": 17]>
net (float[1, 3, 8, 8] x) => (float[1, 4, 8, 8] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, first)
    b = Relu(a)
    c = Conv(b, second)
    d = Add(c, large)
    s = Conv(x, skip)
    y = Add(d, s)
}"""

# No score passes the threshold on random inputs, so that the output is empty.
EMPTY = """<ir_version: 8, opset_import: ["": 17]>
net (float[1, 3, 8, 8] x) => (float[n, 5] y)
<float limit = {1000.0}, int64[2] flat = {64, 8}> {
    a = Conv <pads = [1, 1, 1, 1]> (x, first)
    t = Transpose <perm = [0, 2, 3, 1]> (a)
    rows = Reshape(t, flat)
    score = ReduceMax <axes = [1], keepdims = 0> (x0)
    x0 = MatMul(rows, scoring)
    passing = Greater(score, limit)
    chosen = Compress <axis = 0> (rows, passing)
    y = MatMul(chosen, second)
}"""

# Whether an element lies above a threshold turns over with rounding: its neighbours are equal but for that.
BORDER = """<ir_version: 8, opset_import: ["": 17]>
net (float[1, 3, 32, 32] x) => (float[1, 4, 32, 32] y) <float zero = {0.0}> {
    a = Conv <pads = [1, 1, 1, 1]> (x, first)
    b = Conv(a, second)
    back = Conv(a, second)
    gap = Sub(b, back)
    noise = Mul(gap, b)
    above = Greater(b, zero)
    gate = Cast <to = 1> (above)
    spikes = Mul(gate, b)
    y = Conv(spikes, third)
}"""


def test_a_fault_that_drowns_in_a_bias_is_named_where_it_is() -> None:
    model = parsed(DROWNING, first=(8, 3, 3, 3), second=(4, 8, 1, 1), skip=(4, 3, 1, 1))
    model.graph.initializer.append(numpy_helper.from_array(np.full((1, 4, 1, 1), 1e7, np.float32), "large"))
    source, plan, pruned = halved(model)
    assert onnxprune.verify(source, pruned, plan).complete
    faulty = changed(pruned, "first", swap_first)
    certificate = onnxprune.verify(source, faulty, plan)
    assert not certificate.passed
    assert certificate.failures[0].name == "a"
    assert certificate.failures[0].positions == (0, 1)
    assert "tensor 'a' of node 'a'" in certificate.sentences[0]


def test_what_no_input_reaches_is_fed_directly() -> None:
    lines = EMPTY.splitlines()
    lines[6], lines[7] = lines[7], lines[6]
    model = parsed("\n".join(lines), first=(8, 3, 3, 3), scoring=(8, 2), second=(8, 5))
    source, plan, pruned = halved(model)
    assert onnxprune.verify(source, pruned, plan).complete
    for weight in ("first", "second"):
        assert not onnxprune.verify(source, changed(pruned, weight, swap_first), plan).passed


def test_comparisons_at_the_border_are_no_refusal() -> None:
    model = parsed(BORDER, first=(8, 3, 3, 3), second=(8, 8, 1, 1), third=(4, 8, 1, 1))
    source, plan, pruned = halved(model)
    certificate = onnxprune.verify(source, pruned, plan)
    assert certificate.complete, certificate.sentences
    # The certificate does not look away there either.
    assert not onnxprune.verify(source, changed(pruned, "third", lambda a: a[:, :2].sort(axis=1)), plan).passed


@pytest.mark.parametrize("name", _MODELS)
def test_every_kind_of_fault_shows_in_a_tensor(name: str) -> None:
    source, plan, pruned = halved(f"models/{name}.onnx")
    power = measure_power(source, pruned, plan, 60)
    assert power.tried == 60
    assert power.by_tensors + power.refused == power.tried, power.sentences


def test_the_whole_certificate_fails_as_its_rehearsal_does() -> None:
    source, plan, pruned = halved("models/residual_dynamo.onnx")
    analysis = onnxprune.analyze(source)
    for mutation in islice(mutations(pruned, analysis, plan, seed=3), 8):
        assert not onnxprune.verify(source, mutation.apply(pruned), plan).passed, str(mutation)


def test_stretches_of_little_memory_give_the_same_answer() -> None:
    source, plan, pruned = halved("models/dense_dynamo.onnx")
    whole = onnxprune.verify(source, pruned, plan)
    pieces = onnxprune.verify(source, pruned, plan, memory=1 << 18)
    assert whole.complete
    assert pieces.complete
    assert pieces.tensors == whole.tensors
    faulty = next(iter(mutations(pruned, onnxprune.analyze(source), plan, seed=1))).apply(pruned)
    assert not onnxprune.verify(source, faulty, plan, memory=1 << 18).passed


def test_trained_since_is_told_apart_from_cut_wrongly() -> None:
    """A weight that changes less than the tolerance of any tensor is still another weight."""
    source, plan, pruned = halved("models/residual_dynamo.onnx")
    name = next(n for n, w in pruned.weights.items() if len(w.shape) == 4)
    certificate = onnxprune.verify(source, changed(pruned, name, lambda a: np.multiply(a, 1 + 1e-6, out=a)), plan)
    assert not certificate.failures
    assert certificate.changed == (name,)
    assert "trained or refitted since" in certificate.sentences[0]


def test_what_nothing_can_show_is_not_written_unless_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, plan, pruned = halved("models/residual_dynamo.onnx")
    dark = Unwitnessed("c[1]", "kept positions 0, 1 carry equal values on every input tried")
    certificate = replace(onnxprune.verify(source, pruned, plan), unwitnessed=(dark,))
    assert certificate.passed
    assert not certificate.complete
    assert certificate.sentences[1] == f"Not witnessed: {dark.where}: {dark.reason}."
    with pytest.raises(onnxprune.VerificationError, match="except for what no input can show: c"):
        certificate.require()
    certificate.require(accept_unwitnessed=True)
    monkeypatch.setattr("onnxprune.pruning.pipeline.verify", lambda *_, **__: certificate)
    arguments = ["prune", "models/residual_dynamo.onnx", "-o", str(tmp_path / "out.onnx"), "--channels", "0.5"]
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 1
    assert not list(tmp_path.iterdir())
    accepted = CliRunner().invoke(app, [*arguments, "--accept-unwitnessed", "--json"])
    assert json.loads(accepted.stdout)["certificate"]["unwitnessed"][0]["where"] == "c[1]"
    assert (tmp_path / "out.onnx").exists()


def test_an_index_into_what_no_input_selects_is_noticed() -> None:
    """No box passes the threshold, so that the boxes' numbers are empty: the column that is read still counts."""
    model = parsed(
        """<ir_version: 8, opset_import: ["": 17]>
        net (float[1, 3, 2, 2] x) => (float[1, 4, n] y)
        <int64[1] most = {10}, float[1] overlap = {0.5}, float[1] least = {1e9}, int64[1] column = {2},
         int64[3] four = {1, 4, 4}, int64[3] one = {1, 1, 4}, int64[1] minus = {-1}> {
            a = Conv(x, first)
            b = Conv(a, boxing)
            r = Reshape(b, four)
            boxes = Transpose <perm = [0, 2, 1]> (r)
            s = Conv(a, scoring)
            scores = Reshape(s, one)
            found = NonMaxSuppression(boxes, scores, most, overlap, least)
            place = Gather <axis = 1> (found, column)
            flat = Reshape(place, minus)
            y = Gather <axis = 2> (r, flat)
        }""",
        first=(8, 3, 1, 1),
        boxing=(4, 8, 1, 1),
        scoring=(1, 8, 1, 1),
    )
    source, plan, pruned = halved(model)
    assert onnxprune.verify(source, pruned, plan).complete
    analysis = onnxprune.analyze(source)
    faults = [m for m in mutations(pruned, analysis, plan, kinds=[Kind.SHIFTED_INDEX]) if m.tensor == "column"]
    assert faults
    rehearsal = Rehearsal(certifier_of(analysis, plan), pruned, usual_inputs(analysis))
    assert all(rehearsal.differing(fault.apply(pruned)) for fault in faults)


def test_witnesses_split_what_differs_by_enough_only() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((4, 50)).astype(np.float32)
    rows[3] = rows[1] * (1 + 1e-7)
    witnesses = Witnesses({7: 4}, TOLERANCE)
    witnesses.observe(7, rows.T, 1)
    assert [cluster.tolist() for cluster in witnesses.clusters(7)] == [[1, 3]]
    rows[3, 20] += 0.1
    witnesses.observe(7, rows, 0)
    assert not witnesses.open


def test_dead_channels_are_no_witnesses() -> None:
    witnesses = Witnesses({0: 3}, TOLERANCE)
    witnesses.observe(0, np.zeros((3, 40), np.float32), 0)
    witnesses.observe(0, np.zeros((3, 0), np.float32), 0)
    witnesses.observe(0, np.full((3, 4), np.nan, np.float32), 0)
    assert witnesses.open == {0}


def test_differences_are_relative_to_the_spread_of_the_channel() -> None:
    rng = np.random.default_rng(1)
    wanted = rng.standard_normal((1, 2, 64)).astype(np.float32)
    wanted[0, 0] *= 1e-6
    found = wanted.copy()
    found[0, 0, 5] += 1e-8
    result = compare("t", "n", wanted, found, 1, TOLERANCE)
    assert not result.passed
    assert result.positions == (0,)
    assert compare("t", "n", wanted, found, None, TOLERANCE).passed
    assert not compare("t", "n", wanted, found[:, :1], 1, TOLERANCE).passed
    assert not compare("t", "n", wanted, np.where(found > 2, np.nan, found), 1, TOLERANCE).passed


def test_another_interface_is_refused() -> None:
    source, plan, pruned = halved("models/residual_dynamo.onnx")
    proto = pruned.to_proto()
    extra = helper.make_node("Identity", [proto.graph.output[0].name], ["more"])
    proto.graph.node.append(extra)
    proto.graph.output.append(helper.make_tensor_value_info("more", 1, [1, 10]))
    with pytest.raises(onnxprune.VerificationError, match="outputs of the pruned model are not those"):
        onnxprune.verify(source, proto, plan)


def test_the_spread_of_huge_numbers_is_finite() -> None:
    """Squares overflow in single precision; of an infinite spread, any difference is a small part."""
    rng = np.random.default_rng(0)
    wanted = (1e25 * rng.standard_normal((4, 100))).astype(np.float32)
    found = wanted.copy()
    found[2, 5] += np.float32(1e23)
    for dim in (0, None):
        assert not compare("t", "n", wanted, found, dim, TOLERANCE).passed


def test_a_long_sum_is_rounded_as_often_as_it_has_terms() -> None:
    """Where all terms are equal, moving the inputs by a last place moves nothing; partial sums are rounded yet."""
    model = parsed(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 8, 4, 4] x) => (float[1, 6] y) {
            c = Conv(x, w)
            f = Flatten(c)
            y = Gemm(f, v)
        }""",
        w=(1568, 8, 1, 1),
    )
    model.graph.initializer.append(numpy_helper.from_array(np.full((25088, 6), 0.3, np.float32), "v"))
    source, plan, _ = halved(model)
    certifier = certifier_of(onnxprune.analyze(source), plan)
    given = {"f": np.full((1, 25088), 1e20, dtype=np.float32)}
    found = certifier._masked.run(["y"], given, None)["y"]
    for places, passed in ((100, True), (1000, False)):
        wanted = found + places * np.spacing(found)
        difference = compare("y", "y", wanted, found, None, TOLERANCE)
        assert not difference.passed
        assert certifier._is_rounding(difference, certifier._masked, given, (wanted, found), None) is passed
