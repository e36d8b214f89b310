"""Parts: equal to the whole, proven so, written whole or not at all; and what a split costs."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings

import onnxprune
from onnxprune.data.samples import collect
from onnxprune.errors import BudgetError, UsageError, VerificationError
from onnxprune.latency.times import record_times
from onnxprune.splitting.chain import chain_within, costs_of, even_chain
from onnxprune.splitting.costs import Ledger
from onnxprune.splitting.cuts import Cut
from onnxprune.splitting.links import Link
from onnxprune.splitting.narrowing import WireSize
from onnxprune.splitting.parts import joined, parts_of
from onnxprune.splitting.proof import certify_split
from onnxprune.splitting.splitting import split_at
from onnxprune.splitting.weighing import Setting, weigh
from onnxprune.splitting.wire import Code, _rounding, roundings
from onnxprune.splitting.writing import MANIFEST, schema
from tests.cli.support import MODELS, RESIDUAL, done, done_json, refused, saved
from tests.latency.fakes import FakeMachine
from tests.latency.networks import chain
from tests.random_graphs.strategy import RandomGraph, random_graphs

_EXAMPLES = os.environ.get("ONNXPRUNE_RANDOM_GRAPHS")


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    return Ledger(onnxprune.analyze(RESIDUAL))


@settings(
    max_examples=int(_EXAMPLES or 25),
    derandomize=_EXAMPLES is None,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
@given(graph=random_graphs())
def test_parts_of_random_graphs_equal_the_whole(graph: RandomGraph) -> None:
    """Of every cut the costs, of some the parts: run one after the other they give what the whole does."""
    model = onnxprune.load(graph.model)
    analysis = onnxprune.analyze(model, graph.input_shapes)
    known = Ledger(analysis)
    cuts = [row.cut for row in weigh(known).cuts if row.cut is not None]
    assert cuts or weigh(known).note
    rng = np.random.default_rng(graph.seed)
    for at in rng.permutation(len(cuts))[:2].tolist():
        split_at(model, known, [cuts[at]])  # raises where the proof fails
    if len(cuts) > 2:
        nested = [cuts[0]]
        nested += [cut for cut in cuts[1:] if nested[0].head & ~cut.head == 0][-1:]
        split_at(model, known, nested)


def test_costs_of_both_sides_add_up(ledger: Ledger) -> None:
    whole = ledger.analysis.totals
    for row in weigh(ledger).cuts:
        assert row.head.macs + row.tail.macs == pytest.approx(whole["flops"])
        assert row.head.weights + row.tail.weights == pytest.approx(ledger.part(ledger.flow.all).weights)
        assert max(row.head.peak, row.tail.peak) <= whole["peak_activations"]
    everything = ledger.part(ledger.flow.all)
    assert everything.peak == whole["peak_activations"]
    assert everything.file == pytest.approx(ledger.analysis.model.file_size, rel=0.01)


def test_a_latency_is_head_link_tail_and_the_way_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path))
    analysis = onnxprune.analyze(chain(16, 24, 5))
    times = record_times(analysis, machine=FakeMachine())
    link = Link(8000.0, 0.5)
    found = weigh(analysis, Setting("int8", link, times, times))
    row = found.best("latency")
    assert row is not None
    head, tail, latency = row.head_seconds, row.tail_seconds, row.latency
    assert head is not None
    assert tail is not None
    assert latency is not None
    assert head + tail == pytest.approx(times.profile.baseline.median)
    assert latency == pytest.approx(head + tail + 2 * 0.5 + (row.wire["int8"] + row.answer) / 1000)
    assert row.wire["int8"] == row.wire["plain"] / 4
    edge = next(one for one in found.cuts if one.place == "edge")
    assert edge.latency == pytest.approx(times.profile.baseline.median)
    with pytest.raises(UsageError, match="another model"):
        weigh(onnxprune.analyze(chain(16, 8, 5)), Setting("plain", link, times, times))
    with pytest.raises(UsageError, match="positive rate"):
        Link(0.0)


@pytest.mark.parametrize("fault", ["weight", "node", "dropped", "mistaken"])
def test_a_fault_in_a_part_is_noticed(ledger: Ledger, fault: str) -> None:
    original = onnxprune.load(RESIDUAL)
    cut = [row.cut for row in weigh(ledger).cuts if row.cut is not None and len(row.tensors) == 2][5]
    assert cut is not None
    head, tail = parts_of(ledger, [cut.head])
    certify_split(original, ledger.analysis, [head, tail]).require()
    draft = tail.edit()
    if fault == "weight":
        name, weight = next((n, w) for n, w in draft.weights.items() if len(w.shape) == 4)
        draft.weights[name] = weight.with_array(weight.array * np.float32(1.0001))
    elif fault == "node":
        next(node for node in draft.graph.node if node.op_type == "Relu").op_type = "Identity"
    elif fault == "dropped":
        del draft.graph.node[-1]
    else:
        draft.replace_uses({cut.tensors[0]: cut.tensors[1]})
    with pytest.raises(VerificationError):
        certify_split(original, ledger.analysis, [head, draft.finish()]).require()


def test_parts_keep_what_the_model_says_of_itself() -> None:
    proto = onnx.load(RESIDUAL)
    proto.metadata_props.add(key="names", value="a,b")
    proto.doc_string, proto.model_version = "about", 7
    model = onnxprune.load(proto)
    known = Ledger(onnxprune.analyze(model))
    cut = next(row.cut for row in weigh(known).cuts if row.cut is not None)
    for part in parts_of(known, [cut.head]):
        assert part.skeleton.metadata_props[0].value == "a,b"
        assert (part.skeleton.doc_string, part.skeleton.model_version) == ("about", 7)
        assert part.opset() == model.opset()
        assert part.graph.input[0].type.tensor_type.shape.dim[0].dim_param, "an open batch stays open"


@pytest.mark.parametrize("coding", ["int8", "float16"])
def test_floats_that_cross_in_fewer_bytes_are_told(ledger: Ledger, coding: str) -> None:
    original = onnxprune.load(RESIDUAL)
    analysis = ledger.analysis
    samples = collect({"image": np.random.default_rng(0).random((8, 1, 28, 28), np.float32)}, analysis.model, 8)
    found = weigh(ledger)
    cut = next(row.cut for row in found.cuts if row.cut is not None and len(row.tensors) == 2)
    ranges = roundings(analysis.model, samples, cut.tensors)
    made = split_at(original, ledger, [cut], coding=coding, ranges=ranges, samples=samples)
    kinds = {value.type.tensor_type.elem_type for value in made.parts[1].graph.input}
    assert kinds == {onnx.TensorProto.UINT8 if coding == "int8" else onnx.TensorProto.FLOAT16}
    assert made.coded is not None
    assert made.coded.passed
    assert made.fidelity is not None
    whole = joined(analysis.model, made.parts)
    out = onnxprune.load(whole.to_bytes())
    assert len(out.graph.node) == len(analysis.model.graph.node) + 2 * len(cut.tensors)
    assert all(0 < ranges[name].packed < ledger.sizes[ledger.flow.order[name]] / 4 * 1.1 for name in cut.tensors)
    assert made.coded.wire is not None
    assert 0.5 < made.coded.wire <= 1
    with pytest.raises(UsageError, match="range"):
        split_at(original, ledger, [cut], coding="int8")


def test_values_that_are_received_otherwise_than_sent_are_noticed(ledger: Ledger) -> None:
    """Also where the whole rounds as wrongly as the parts do."""
    original, analysis = onnxprune.load(RESIDUAL), ledger.analysis
    arrays = {"image": np.random.default_rng(0).random((8, 1, 28, 28), np.float32)}
    samples = collect(arrays, analysis.model, 8)
    cut = next(row.cut for row in weigh(ledger).cuts if row.cut is not None)
    right = roundings(analysis.model, samples, cut.tensors)
    for wrong in ({"scale": 1e-9, "zero": 7}, {"zero": 100}, {"scale": 1.02 * right[cut.tensors[0]].scale}):
        ranges = {name: replace(one, **wrong) for name, one in right.items()}
        with pytest.raises(VerificationError, match="is received as"):
            split_at(original, ledger, [cut], coding="int8", ranges=ranges)
    draft = original.edit()
    first = draft.weights["onnx::Conv_128"]
    draft.weights[first.name] = first.with_array(first.array * np.float32(1e6))
    large = Ledger(onnxprune.analyze(draft.finish()))
    with pytest.raises(VerificationError, match=r"received as -?inf .* ends at 65504"):
        split_at(large.analysis.model, large, [cut], coding="float16")


def test_what_was_only_zero_or_is_beyond_the_range_is_no_fault() -> None:
    code = Code("x", "s", "r", _rounding([np.zeros((2, 3), np.float32)], 2), "int8")
    assert code.rounding is not None
    assert (code.rounding.scale, code.rounding.high) == (1.0, 255.0)
    assert code.difference(np.float32([-3, 7.4, np.nan]), np.float32([0, 7, 0])).passed
    half = Code("x", "s", "r", None, "float16")
    values = np.float32([65504, 1e-7, -1 / 3, np.inf, 0])
    assert half.difference(values, values.astype(np.float16).astype(np.float32)).passed
    assert not half.difference(values, np.float32([65504, 1e-7, -0.333, np.inf, 0])).passed


def test_the_command_writes_parts_with_a_manifest(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    text = done("split", RESIDUAL, "-o", tmp_path / "parts", columns=80)
    assert "Certificate passed" in text
    assert {path.name for path in (tmp_path / "parts").iterdir()} == {"head.onnx", "tail.onnx", MANIFEST}
    manifest = json.loads((tmp_path / "parts" / MANIFEST).read_text())
    jsonschema.validate(manifest, schema())
    assert manifest["certificate"]["passed"] is True
    for entry in manifest["parts"]:
        onnx.checker.check_model(str(tmp_path / "parts" / entry["file"]))


def test_the_command_lists_cuts_in_80_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = done("split", RESIDUAL, columns=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "Best for wire" in text
    data = done_json("split", RESIDUAL, "--joules", "1e-7,1e-11")
    assert {"wire", "macs", "memory", "energy"} == set(data["best"])
    assert any(cut["best"] for cut in data["cuts"])


def test_bad_input_is_told_and_nothing_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "parts"
    times = tmp_path / "times.json"
    record_times(onnxprune.analyze(chain(16, 5)), machine=FakeMachine()).save(times)
    both = ("--edge", times, "--cloud", times)
    single = saved(tmp_path, onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> one (float[1, 4] x) => (float[1, 4] y) { y = Relu (x) }'
    ))  # fmt: skip
    assert "cannot be cut: there are fewer than two" in refused(2, "split", single, "-o", out)
    assert "positive rate" in refused(2, "split", RESIDUAL, "-o", out, "--link", "0Mbit/20ms", *both)
    assert "not a link" in refused(2, "split", RESIDUAL, "-o", out, "--link", "fast", *both)
    assert "needs times" in refused(2, "split", RESIDUAL, "-o", out, "--link", "1Mbit/20ms")
    assert "another model" in refused(2, "split", RESIDUAL, "-o", out, "--link", "1Mbit/20ms", *both)
    assert "no tensor 'nowhere'" in refused(2, "split", RESIDUAL, "-o", out, "--at", "nowhere")
    inner = "/stages/stages.3/first/first.0/Conv_output_0"
    assert "would have to cross, too" in refused(2, "split", RESIDUAL, "-o", out, "--at", inner)
    first, second = "/stem/stem.0/Conv_output_0", "/Relu_output_0"
    told = refused(2, "split", RESIDUAL, "-o", out, "--at", f"{first},{second}")
    assert f"the rest does not read {first}; name only {second}" in told
    for name in ("bogus", "energy"):
        assert f"--best {name} is not known here; choose one of wire, macs" in refused(
            2, "split", RESIDUAL, "--best", name
        )
    assert "samples only" in refused(2, "split", RESIDUAL, "-o", out, "--coding", "packed")
    assert "is there" in refused(2, "split", RESIDUAL, "-o", tmp_path)
    assert not out.exists()
    assert {path.name for path in tmp_path.iterdir()} <= {"cache", "times.json", "model.onnx"}


def test_a_certificate_needs_something_to_have_run(ledger: Ledger) -> None:
    cut = next(row.cut for row in weigh(ledger).cuts if row.cut is not None)
    proof = certify_split(onnxprune.load(RESIDUAL), ledger.analysis, parts_of(ledger, [cut.head]))
    assert proof.passed
    assert len(proof.shapes) > 1, "an open batch is tried with several extents"
    assert not replace(proof, samples=0).passed


def test_a_cut_that_is_named_may_have_more_tensors(ledger: Ledger) -> None:
    wide = next(row for row in weigh(ledger, most=2).cuts if len(row.tensors) == 2)
    assert weigh(ledger, most=1, at=wide.tensors).at(wide.tensors).cut == wide.cut


def test_chains_fit_their_budgets_with_the_fewest_bytes_between(ledger: Ledger) -> None:
    """Beside all pairs of cuts."""
    cuts = [row.cut for row in weigh(ledger).cuts if row.cut is not None]
    budgets = (150e3, 200e3, 240e3)

    def wire(chain: Sequence[Cut]) -> float:
        return sum(ledger.bytes_of(name) for cut in chain for name in cut.tensors)

    fitting = [
        wire(pair)
        for pair in itertools.permutations(cuts, 2)
        if pair[0].head & ~pair[1].head == 0
        and all(cost.memory <= most for cost, most in zip(costs_of(ledger, pair), budgets, strict=True))
    ]
    found = chain_within(ledger, budgets)
    assert wire(found) == min(fitting)
    even = even_chain(ledger, 3)
    largest = max(cost.memory for cost in costs_of(ledger, even))
    with pytest.raises(BudgetError):
        chain_within(ledger, [0.99 * largest] * 3)
    split_at(onnxprune.load(RESIDUAL), ledger, even)
    with pytest.raises(BudgetError, match="alone takes"):
        chain_within(ledger, (1e3, 1e3))
    with pytest.raises(UsageError, match="two parts or more"):
        chain_within(ledger, (1e6,))


def test_a_size_that_follows_from_the_data_is_said_to_be_unknown(tmp_path: Path) -> None:
    """It fits no budget, and is best for nothing."""
    model = saved(tmp_path, onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> counted (float[1, 3, 20, 20] x) => (int64 y) {
            h = Relu (x) i = NonZero (h) f = Cast <to = 1> (i) s = ReduceMax <keepdims = 0> (f) y = Cast <to = 7> (s)
        }"""
    ))  # fmt: skip
    out = tmp_path / "parts"
    for words in (("--budgets", "2kB,16B"), ("--budgets", "1GB,1GB"), ("--parts", "2")):
        assert "size of 'i' is not known" in refused(1, "split", model, *words)
    text = done("split", model, "--every", columns=80)
    assert "nan" not in text
    assert "inf" not in text
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line and line[0] in "hifs"}
    assert (rows["i"][0], rows["h"][-1], rows["i"][-1]) == ("unknown", "9.60k", "unknown")
    assert "Best for wire: s." in text
    assert done_json("split", model)["best"]["memory"] == ["h"]
    assert "an unknown number of bytes cross" in done("split", model, "--at", "i", "-o", out).replace("\n", " ")
    assert json.loads((out / MANIFEST).read_text(), parse_constant=pytest.fail)["costs"][0]["peak"] is None
    words = ("--at", "i", "--max-wire", "1kB", "-o", tmp_path / "narrow")
    assert "whose shape is known" in refused(2, "split", model, *words)


def test_channels_go_until_few_enough_bytes_cross(tmp_path: Path) -> None:
    at = "/stages/stages.3/Relu_1_output_0"
    sample = MODELS / "fashion_sample.npz"
    words = ("--at", at, "--coding", "int8", "--max-wire", 400, "--calibrate", sample)
    data = done_json("split", RESIDUAL, "-o", tmp_path / "parts", *words)
    assert data["cut"]["wire"]["int8"] <= 400
    sent = data["manifest"]["parts"][1]["inputs"][0]
    assert np.prod(sent["shape"][1:]) <= 400
    assert sent["type"] == "UINT8"
    assert data["manifest"]["fidelity"]["share"] > 0.8
    plan = onnxprune.plan(RESIDUAL, mode="wire", max_wire=800, wire=WireSize((at,), "int8"), round_to=1)
    assert set(plan.removed[at]) == {1}
    assert "/MaxPool_output_0" not in plan.removed, "what does not cross stays as it is"
    assert plan.after["wire"] <= 800 < plan.before["wire"]
    with pytest.raises(UsageError, match="depends on the cut"):
        onnxprune.plan(RESIDUAL, mode="wire", reduce=0.5)


@pytest.mark.slow
def test_the_example_runs_parts_in_two_processes(tmp_path: Path) -> None:
    pytest.importorskip("zmq")
    from tests.benchmarks.split_link import measured

    done("split", RESIDUAL, "-o", tmp_path / "parts", columns=80)
    link = Link(1e6, 0.01)
    assert measured(tmp_path / "parts", link, 5599)["lower"] >= 2 * link.delay
