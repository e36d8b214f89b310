"""Measuring a latency profile: what the layers of a model cost at several widths on one machine.

A model's time is taken apart by the runtime's profiler: layers, other operators by type, and what passes between
them. Layers are then measured one by one over a grid of widths; the others are scaled with the sizes of what they
compute. What layers take within the model and by themselves differs a little: one factor corrects it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnxprune.analysis.analyzing import Analysis
from onnxprune.errors import MeasurementError, UsageError
from onnxprune.ir.caches import default_folder
from onnxprune.ir.model import Model
from onnxprune.ir.sampling import Rounds
from onnxprune.ir.session import Arrays, random_inputs
from onnxprune.ir.tracing import Trace
from onnxprune.latency.cache import Cache
from onnxprune.latency.grid import MULTIPLES, knots, points, typical
from onnxprune.latency.layer_models import Point, batches, by_kind
from onnxprune.latency.layers import LayerCase, Widths, layer_cases
from onnxprune.latency.machine import LocalMachine, Machine
from onnxprune.latency.model import LatencyProfile, Table
from onnxprune.latency.statistics import spread
from onnxprune.pruning.options import AUTO, MEASURED
from onnxprune.pruning.widths import CPU, block

FloatArray = NDArray[np.float64]
Progress = Callable[[int, int], None]

#: How many of the costliest layers decide about the multiple, at which share of their widths they are tried, how much
#: better a larger multiple has to be, and for which share of them there has to be such a width.
_JUDGES, _SHARES, _BETTER, _APPLIES = 8, (0.4, 0.6), 0.03, 0.8
_LEAST_STEP = 1e-3
#: Rounds of the whole model at most: what a plan is judged by is measured beside it later.
_BASELINE = 40
#: From this disturbance on, times of layers are not kept.
DISTURBED = 1.5


def profile_latency(
    model: Analysis,
    *,
    machine: Machine | None = None,
    round_to: int | str = AUTO,
    rounds: Rounds | None = None,
    cache: Cache | None = None,
    seed: int = 0,
    progress: Progress = lambda done, of: None,
) -> LatencyProfile:
    """Measure what the layers of a model cost on this machine.

    Args:
        model: the analysis; its input shapes are those that are measured.
        machine: onnxruntime here with one thread, if not another.
        round_to: the multiple that channel counts will be rounded to; ``auto``: what the provider computes together
            (:data:`~onnxprune.pruning.widths.BLOCKS`); ``measured``: the one that gives the most channels for the time.
        rounds: how often and how long the whole model is measured.
        cache: where times of layers are kept; the user's cache folder if not given.
        seed: of the random inputs.
        progress: called with the number of points of layers that were measured and of all.

    Raises:
        MeasurementError: the runtime does not run the model.
        UsageError: ``round_to`` is neither a positive number nor one of these.
    """
    if round_to not in (AUTO, MEASURED) and (not isinstance(round_to, int) or round_to < 1):
        raise UsageError(f"round_to must be '{AUTO}', '{MEASURED}' or at least 1, not {round_to!r}")
    machine = machine or LocalMachine()
    cases = layer_cases(model)
    inputs = inputs_of(model, seed)
    baseline = spread(machine.rounds([model.model], inputs, rounds or Rounds(most=_BASELINE))[:, 0])
    trace = machine.trace(model.model, inputs)
    disturbance = trace.total / baseline.median
    # What was measured on a busy machine serves now, but is not kept for quieter days.
    meter = _Meter(machine, cache or Cache(default_folder(), machine.identity), disturbance <= DISTURBED, progress)
    choices = _choices(model, cases, meter) if round_to == MEASURED else {}
    if round_to == AUTO:
        multiple = block(machine.identity.get("provider", CPU))
    else:
        multiple = _best(choices) if round_to == MEASURED else int(round_to)
    kinds = by_kind(cases)
    grids = {kind: tuple(knots(full, multiple) for full in case.measured_full) for kind, case in kinds.items()}
    measured = meter.seconds(Point(case, w) for kind, case in kinds.items() for w in points(grids[kind]))
    tables = {}
    for kind, grid in grids.items():
        times = [measured.get((kinds[kind].key, widths)) for widths in points(grid)]
        if all(time is not None for time in times):
            tables[kind] = Table(grid, _monotone(np.array(times, dtype=np.float64).reshape([len(w) for w in grid])))
    layers, others, between = _parts(model, trace)
    return LatencyProfile(
        identity=dict(machine.identity),
        multiple=multiple,
        baseline=baseline,
        layers=layers,
        others=others,
        between=between,
        tables=tables,
        disturbance=disturbance,
        choices=choices,
        nodes=_by_node(model.model, trace),
    )


def choose_multiple(model: Analysis, *, machine: Machine | None = None, cache: Cache | None = None) -> int:
    """The multiple of channels that gives the most of them for the time, as the costliest layers show it.

    Args:
        model: the analysis.
        machine: onnxruntime here with one thread, if not another.
        cache: where times of layers are kept; the user's cache folder if not given.
    """
    machine = machine or LocalMachine()
    meter = _Meter(machine, cache or Cache(default_folder(), machine.identity))
    return _best(_choices(model, layer_cases(model), meter))


def inputs_of(model: Analysis, seed: int = 0) -> Arrays:
    """Random inputs of the shapes that a model was analysed with."""
    return random_inputs(model.model, model.shapes.binding, seed)


class _Meter:
    """Times of points: from the cache, or measured and put there."""

    def __init__(
        self, machine: Machine, cache: Cache, keep: bool = True, progress: Progress = lambda done, of: None
    ) -> None:
        self._machine, self._cache, self._keep, self._progress = machine, cache, keep, progress
        self._known: dict[tuple[str, Widths], float] = {}
        self._read: set[str] = set()

    def seconds(self, wanted: Iterable[Point]) -> dict[tuple[str, Widths], float]:
        """Seconds by signature and widths; what cannot be run is not there."""
        asked = {(point.case.key, point.widths): point for point in wanted}
        for point in asked.values():
            if point.case.key not in self._read:
                self._read.add(point.case.key)
                found = self._cache.read(point.case)
                self._known.update({(point.case.key, widths): time for widths, time in found.items()})
        missing = [point for key, point in asked.items() if key not in self._known]
        new: dict[str, tuple[LayerCase, dict[Widths, float]]] = {}
        done = 0
        # Point by point of the grid, not layer by layer: between two runs of one layer all the others run.
        for batch in batches(sorted(missing, key=lambda point: (math.prod(point.widths), point.case.key))):
            for point, time in zip(batch, self._machine.points(batch), strict=True):
                if time is not None:
                    new.setdefault(point.case.key, (point.case, {}))[1][point.widths] = time
            done += len(batch)
            self._progress(done, len(missing))
        for key, (case, times) in new.items():
            self._known.update({(key, widths): time for widths, time in times.items()})
            if self._keep:
                self._cache.write(case, times)
        return {key: self._known[key] for key in asked if key in self._known}


def _choices(model: Analysis, cases: Sequence[LayerCase | None], meter: _Meter) -> dict[int, float]:
    """What a kept channel takes when counts are multiples of so many, relative to counts that are not rounded.

    The mean over the costliest layers, weighted by multiply-accumulates. A multiple that is too coarse for many of
    them is left out.
    """
    work: dict[str, float] = {}
    for case, macs in zip(cases, model.costs.per_layer("flops", model.costs.full), strict=True):
        if case is not None and case.measured_full:
            work[case.kind] = work.get(case.kind, 0.0) + float(macs)
    kinds = by_kind(cases)
    judges = [kinds[kind] for kind in sorted(work, key=lambda kind: -work[kind])[:_JUDGES]]
    tried = {(case.kind, m): _tries(case, m) for case in judges for m in MULTIPLES}
    seconds = meter.seconds(point for tries in tried.values() for point in tries)
    found: dict[int, float] = {}
    for m in MULTIPLES:
        shares = {case.kind: _per_channel(tried[case.kind, m], seconds) for case in judges}
        plain = {case.kind: _per_channel(tried[case.kind, 1], seconds) for case in judges}
        known = [key for key in shares if shares[key] > 0 and plain[key] > 0]
        weight = sum(work[key] for key in known)
        if weight > 0 and weight >= _APPLIES * sum(work[case.kind] for case in judges):
            found[m] = sum(work[key] * shares[key] / plain[key] for key in known) / weight
    return found


def _tries(case: LayerCase, multiple: int) -> list[Point]:
    """The layer at widths that are typical for a multiple; none where it is too narrow for such."""
    widths = (tuple(typical(share * full, full, multiple) for full in case.measured_full) for share in _SHARES)
    return [Point(case, w) for w in widths if all(k < full for k, full in zip(w, case.measured_full, strict=True))]


def _per_channel(tries: Sequence[Point], seconds: Mapping[tuple[str, Widths], float]) -> float:
    """Mean seconds per combination of channels; 0 if unknown."""
    times = [seconds.get((p.case.key, p.widths), 0.0) / math.prod(p.widths) for p in tries]
    return sum(times) / len(times) if times and min(times) > 0 else 0.0


def _best(choices: Mapping[int, float]) -> int:
    """The smallest multiple that is nearly as good as the best: finer steps meet budgets better."""
    if not choices:
        return 1
    least = min(choices.values())
    return min(m for m, ratio in choices.items() if ratio <= least * (1 + _BETTER))


def _monotone(seconds: FloatArray) -> FloatArray:
    """The same without dips: more channels always take a little longer, or planning would find no way across.

    The mean of the nearest monotone bounds from both sides, and at least one thousandth of the whole per step.
    """
    above, below = seconds, seconds
    for axis in range(seconds.ndim):
        above = np.maximum.accumulate(above, axis=axis)
        below = np.flip(np.minimum.accumulate(np.flip(below, axis), axis=axis), axis)
    result: FloatArray = (above + below) / 2
    for axis, count in enumerate(seconds.shape):
        ramp = np.arange(count) * (_LEAST_STEP * result.max())
        ramp = ramp.reshape([-1 if at == axis else 1 for at in range(seconds.ndim)])
        result = np.maximum.accumulate(result - ramp, axis=axis) + ramp
    return result


def _by_node(model: Model, trace: Trace) -> dict[str, float]:
    """Seconds by the first output of each node of a graph.

    onnxruntime names what it fuses and lays out anew by the node or tensor it begins or ends with, and something behind
    (``relu_1_nchwc``, ``act/QuickGeluFusion/``). What has a name of its own counts with what runs before it.
    """
    known: dict[str, str] = {}
    for node in model.graph.node:
        first = next((name for name in node.output if name), "")
        known.update(dict.fromkeys((name for name in (node.name, *node.output) if name), first))
    found: dict[str, float] = {}
    at = next(iter(known.values()), "")
    for timed in trace.nodes:
        at = _longest(timed.name.removeprefix("fused "), known) or at
        found[at] = found.get(at, 0.0) + timed.seconds
    return found


def _longest(name: str, known: Mapping[str, str]) -> str | None:
    """What the longest known name stands for that a name is, or begins with up to a mark."""
    ends = (end for end in range(len(name), 0, -1) if end == len(name) or not name[end].isalnum())
    return next((known[name[:end]] for end in ends if name[:end] in known), None)


def _parts(model: Analysis, trace: Trace) -> tuple[float, dict[str, float], float]:
    """Seconds of layers, of other operators by type, and between them.

    onnxruntime runs a MatMul with the Add behind it as a Gemm, and names what it fused ``Fused…``. Where nodes are not
    told apart all time is in layers, by their multiply-accumulates: what is measured of plans corrects it.
    """
    if not trace.nodes and trace.between > 0:
        return trace.between, {}, 0.0
    kinds = {layer.op_type for layer in model.costs.layers}
    if "MatMul" in kinds:
        kinds.add("Gemm")
    layers = 0.0
    others: dict[str, float] = {}
    for node in trace.nodes:
        if node.op_type.removeprefix("Fused") in kinds:
            layers += node.seconds
        else:
            others[node.op_type] = others.get(node.op_type, 0.0) + node.seconds
    if layers + sum(others.values()) <= 0:
        raise MeasurementError(
            "the profiler reports no time for any operator of the model: it is too small to be measured"
        )
    return layers, others, trace.between
