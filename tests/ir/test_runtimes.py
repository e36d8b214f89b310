"""Engines beside onnxruntime: found by name, compiled for the shapes that come, and timed node by node."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import onnxprune
from onnxprune.errors import MeasurementError, RegistryError, UsageError
from onnxprune.ir import runtimes
from onnxprune.ir.agreement import _gap
from onnxprune.ir.engine import Engine
from onnxprune.ir.runtimes import Program, Shapes
from onnxprune.ir.runtimes.converting import command, output_shapes, own_copy
from onnxprune.ir.runtimes.litert import _matched, _order
from onnxprune.ir.sampling import exactly
from onnxprune.ir.timing import fitting_clock, taking_turns
from onnxprune.ir.tracing import traced
from onnxprune.latency.cache import Cache
from onnxprune.latency.machine import LocalMachine
from tests.cli.support import RESIDUAL, VGG, done, done_json, refused, run, saved
from tests.latency.fakes import FakeClock
from tests.latency.networks import chain

IMAGE = {"image": np.random.default_rng(0).standard_normal((2, 1, 28, 28)).astype(np.float32)}


class Counting:
    """onnxruntime behind the protocol, whose n-th run takes n seconds in its Conv."""

    name, profiles = "counting", True

    def __init__(self) -> None:
        self.compiled: list[Shapes] = []

    def version(self) -> str:
        return "1.2"

    def compile(self, source: Path | bytes, shapes: Shapes, *, threads: int, profile: bool) -> Program:
        self.compiled.append(shapes)
        return _Program(source)


class _Program:
    def __init__(self, source: Path | bytes) -> None:
        self._session = onnxruntime.InferenceSession(source)
        self._runs = 0
        graph = (onnx.load_from_string(source) if isinstance(source, bytes) else onnx.load(source)).graph
        self.weights = sum(math.prod(tensor.dims) for tensor in graph.initializer)

    def run(self, inputs: Mapping[str, Any]) -> list[Any]:
        self._runs += 1
        return list(self._session.run(None, dict(inputs)))

    def nodes(self) -> list[tuple[str, str, float]]:
        once = [] if self._runs > 2 else [("repack", "Reorder", 7.0)]
        return [("conv", "Conv", sum(range(self._runs + 1))), *once]


@pytest.fixture(autouse=True)
def _nothing_known() -> Iterator[None]:
    runtimes.runtime.cache_clear()
    yield
    runtimes.runtime.cache_clear()


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    """A runtime that another package lists."""
    made = Counting()
    _listed(monkeypatch, "counting", lambda: lambda: made)
    return made


def _listed(monkeypatch: pytest.MonkeyPatch, name: str, load: Callable[[], Any]) -> None:
    entry = SimpleNamespace(name=name, value="package:Class", load=load)

    def entry_points(group: str, **wanted: str) -> list[SimpleNamespace]:
        assert group == runtimes.ENTRY_POINTS
        return [entry] if wanted.get("name", name) == name else []

    monkeypatch.setattr(runtimes, "entry_points", entry_points)


def test_a_package_adds_a_runtime(counting: Counting) -> None:
    assert runtimes.names() == ("onnxruntime", "counting", "iree", "litert", "ncnn", "openvino", "tract", "tvm")
    engine = Engine(runtime="counting")
    assert (engine.version(), engine.kernels, str(engine)) == ("1.2", "counting", "1 thread, counting")
    assert Engine(**engine.to_dict()) == engine


def test_a_model_is_compiled_once_for_every_shape(counting: Counting) -> None:
    session = Engine(runtime="counting").session(RESIDUAL)
    (wanted,) = Engine().session(RESIDUAL).run(None, IMAGE)
    for _ in range(2):
        np.testing.assert_array_equal(session.run(None, IMAGE)[0], wanted)
    session.run(None, {"image": IMAGE["image"][:1]})
    assert counting.compiled == [{"image": (2, 1, 28, 28)}, {"image": (1, 1, 28, 28)}]


def test_sums_become_times_per_run_and_what_only_warming_up_takes_counts_nothing(counting: Counting) -> None:
    trace = traced(RESIDUAL, IMAGE, Engine(runtime="counting"), runs=12)
    (node,) = trace.nodes
    assert (node.name, node.op_type, node.seconds) == ("conv", "Conv", pytest.approx((3 + 4 + 5) / 3))


def test_what_has_no_profiler_says_so(counting: Counting) -> None:
    counting.profiles = False
    with pytest.raises(UsageError, match="counting does not tell the time of single nodes"):
        traced(RESIDUAL, IMAGE, Engine(runtime="counting"), runs=3)


def test_a_latency_is_met_by_whole_models_alone(
    counting: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    compute = _Program.run

    def run(program: _Program, inputs: Mapping[str, Any]) -> list[Any]:
        clock.now += 1e-5 + 1e-8 * program.weights
        return compute(program, inputs)

    counting.profiles = False
    monkeypatch.setattr(_Program, "run", run)
    monkeypatch.setattr("onnxprune.latency.machine.fitting_clock", lambda engine: clock)
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path / "cache"))
    how = ("--runtime", "counting", "--mode", "latency", "--reduce", 0.4, "--round-to", 1, "--no-bench")
    latency = done_json("prune", saved(tmp_path, chain(64, 128, 64, 5)), "-o", tmp_path / "out.onnx", *how)["latency"]
    assert (latency["profile"]["others"], latency["profile"]["between"]) == ({}, 0.0)
    assert latency["met"]
    assert latency["ratio"]["median"] == pytest.approx(0.6, rel=0.05)


def test_models_are_measured_in_it(counting: Counting) -> None:
    result = onnxprune.bench(RESIDUAL, VGG, runtime="counting", rounds=exactly(2), memory=False)
    assert result.to_dict()["engine"]["runtime"] == "counting"
    assert len(counting.compiled) == 2
    seconds = taking_turns([onnxprune.load(VGG)], IMAGE, exactly(2), Engine(runtime="counting"))
    assert (seconds > 0).all()
    identity = LocalMachine(Engine(runtime="counting")).identity
    assert (identity["counting"], identity["provider"]) == ("1.2", "counting")
    assert "onnxruntime" not in identity


def test_a_failure_names_the_runtime(counting: Counting) -> None:
    wrong = {"image": np.ones((1, 3, 28, 28), np.float32)}
    with pytest.raises(MeasurementError, match="counting does not run the model"):
        taking_turns([onnxprune.load(VGG)], wrong, exactly(2), Engine(runtime="counting"))
    with pytest.raises(MeasurementError, match="counting does not run the model"):
        traced(VGG, wrong, Engine(runtime="counting"), runs=2)


def test_what_is_not_there_is_said_with_what_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="runtime 'coreml' is not known; choose one of onnxruntime, iree"):
        Engine(runtime="coreml")
    assert "choose one of onnxruntime, iree" in refused(2, "bench", VGG, "--runtime", "coreml")

    def absent() -> str:
        raise ImportError("No module named 'counting'")

    _listed(monkeypatch, "counting", lambda: lambda: SimpleNamespace(version=absent))
    with pytest.raises(UsageError, match=r"not installed .*it belongs to the extra 'counting'"):
        Engine(runtime="counting")
    runtimes.runtime.cache_clear()
    _listed(monkeypatch, "counting", absent)
    with pytest.raises(RegistryError, match=r"'counting' = 'package:Class' of group onnxprune\.runtimes cannot be"):
        Engine(runtime="counting")


def test_settings_of_onnxruntime_are_not_for_others(counting: Counting) -> None:
    for settings in ({"provider": "CUDAExecutionProvider"}, {"inter_threads": 2}):
        with pytest.raises(UsageError, match="counting has neither"):
            Engine(runtime="counting", **settings)  # type: ignore[arg-type]


def test_one_thread_is_timed_by_the_processors_clock(counting: Counting) -> None:
    import time

    assert fitting_clock(Engine(runtime="counting")) is time.process_time
    assert fitting_clock(Engine(threads=2, runtime="counting")) is time.perf_counter


def test_verify_says_what_another_runtime_makes_of_both(
    counting: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smaller = tmp_path / "smaller.onnx"
    done("prune", VGG, "-o", smaller, "--reduce", 0.3, "--no-bench")
    words = ("verify", VGG, smaller, "--runtime", "counting")
    assert "In counting the pruned model differs from onnxruntime by 0e+00" in done(*words)
    assert done_json(*words)["runtime"]["pruned"] == {"difference": 0.0, "refusal": None, "passed": True}
    compute = _Program.run
    monkeypatch.setattr(_Program, "run", lambda self, inputs: [y + 0.01 * np.ptp(y) for y in compute(self, inputs)])
    assert run(*words).exit_code == 1

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no Conv here\nstack")

    monkeypatch.setattr(Counting, "compile", refuse)
    failed = run(*words)
    assert failed.exit_code == 1
    assert "In counting the pruned model is refused: no Conv here." in failed.stdout


def test_outputs_agree_by_their_spread() -> None:
    wanted = np.array([1.0, 3.0])
    assert _gap(wanted, wanted + 0.1) == pytest.approx(0.05)
    assert _gap(np.zeros(3), np.full(3, 1e-7)) == pytest.approx(1e-4)
    assert _gap(np.zeros(0), np.zeros(0)) == 0
    assert _gap(wanted, np.array([1.0, np.nan])) == np.inf
    assert _gap(wanted, wanted[None]) == np.inf


_PACKAGES = {
    "iree": "iree.compiler",
    "litert": "ai_edge_litert",
    "ncnn": "ncnn",
    "openvino": "openvino",
    "tract": "tract",
    "tvm": "tvm",
}


@pytest.mark.parametrize("name", _PACKAGES)
def test_it_computes_the_same(name: str) -> None:
    pytest.importorskip(_PACKAGES[name])
    engine = Engine(runtime=name)
    one = {"image": IMAGE["image"][:1]}
    for model in (VGG, RESIDUAL):
        (wanted,) = Engine().session(model).run(None, one)
        for source in (model, Path(model).read_bytes()):
            (found,) = engine.session(source).run(None, one)
            np.testing.assert_allclose(found, wanted, atol=1e-4 * np.ptp(wanted))


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_pytorch_computes_the_same(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from onnxprune.torch.runtime import Torch

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    (wanted,) = Engine().session(VGG).run(None, IMAGE)
    for source in (Path(VGG), Path(VGG).read_bytes()):
        (found,) = runtimes.Session(Torch(), source, threads=1).run(None, IMAGE)
        np.testing.assert_allclose(found, wanted, atol=1e-4 * np.ptp(wanted))


def test_ncnn_is_given_one_sample_at_a_time() -> None:
    pytest.importorskip("ncnn")
    with pytest.raises(ValueError, match="a batch of 1"):
        Engine(runtime="ncnn").session(VGG).run(None, IMAGE)


def test_channels_that_come_last_go_back_to_their_place() -> None:
    assert _order("y", (1, 5, 7, 3), (1, 3, 5, 7)) == (0, 3, 1, 2)
    assert _order("y", (1, 3, 5, 7), (1, 3, 5, 7)) == (0, 1, 2, 3)
    assert _order("y", (1, 10), (1, 10)) == (0, 1)
    assert _order("y", (1, 28, 28, 1), (1, 28, 28, 1)) == (0, 1, 2, 3)
    for found in ((1, 5, 5, 5), (1, 2, 3, 4)):
        with pytest.raises(RuntimeError, match="cannot be read as"):
            _order("y", found, (1, 5, 5, 5))


def test_inputs_that_cannot_be_told_apart_are_refused() -> None:
    """Rather than swapped."""
    one, two = (1, 3), (1, 5)
    alike = {"a": one, "b": one}
    assert _matched({"serving_default_b:0": one, "serving_default_a:0": one}, alike) == ["b", "a"]
    ids = {"ids": one, "ids_2": one}
    assert _matched({"serving_default_ids_2:0": one, "serving_default_ids:0": one}, ids) == ["ids_2", "ids"]
    assert _matched({"x/b_in": one, "x/a_in": two}, {"a_in": two, "b_in": one}) == ["b_in", "a_in"]
    assert _matched({"input_1": two, "input_0": one}, {"a": one, "b": two}) == ["b", "a"]
    assert _matched({"input_1": (1, 1)}, {"a": one}) == ["a"]
    for slots in (("input_1", "input_0"), ("ab", "ba"), ("a", "a_1")):
        with pytest.raises(RuntimeError, match="neither names nor shapes"):
            _matched(dict.fromkeys(slots, one), alike)


def test_a_converter_that_fails_says_why(tmp_path: Path) -> None:
    words = [sys.executable, "-c", "import sys; sys.exit('no such operator')"]
    with pytest.raises(RuntimeError, match="no such operator"):
        command(words, tmp_path)
    copied = own_copy(Path(VGG), tmp_path)
    assert output_shapes(copied, {"image": (3, 1, 28, 28)}) == {"logits": (3, 10)}


def test_openvino_tells_the_time_of_layers() -> None:
    pytest.importorskip("openvino")
    engine = Engine(runtime="openvino")
    trace = traced(RESIDUAL, IMAGE, engine, runs=3)
    layers = [node for node in trace.nodes if node.op_type in ("Conv", "Gemm")]
    graph = onnxprune.load(RESIDUAL).graph
    assert len(layers) == sum(node.op_type in ("Conv", "Gemm") for node in graph.node)


def test_a_profile_in_openvino(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    machine = LocalMachine(Engine(runtime="openvino"))
    analysis = onnxprune.analyze(chain(64, 128, 64, 5))
    cache = Cache(tmp_path, machine.identity)
    profile = onnxprune.profile_latency(analysis, machine=machine, rounds=exactly(2), cache=cache)
    assert "openvino" in profile.identity
    assert profile.multiple == 16
    assert len(profile.tables) == 4
    assert profile.layers > 0
