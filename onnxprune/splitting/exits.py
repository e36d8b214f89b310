"""Early exits: of several outputs that answer the same question, how many samples may leave at an early one.

A sample leaves at the first output that is sure enough of it; one threshold is for all exits. Candidates follow from
some samples, and are tested on others, strict ones first, up to the first that fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from onnxprune._display import long, percent, seconds
from onnxprune.analysis.analyzing import Analysis
from onnxprune.data.bounds import SOURCES, Bound, Losses, fixed_sequence, require_samples
from onnxprune.data.fidelity import answers_of
from onnxprune.data.samples import CalibrationSource, Samples, collect_three
from onnxprune.data.tasks.base import FloatArray, IntArray, percentage, sureness
from onnxprune.errors import AnswersError, DataError, UsageError, unknown
from onnxprune.ir.model import Model
from onnxprune.latency.times import Times
from onnxprune.pruning.options import PromiseOptions
from onnxprune.splitting.costs import Ledger
from onnxprune.splitting.cuts import Cut

WHAT = "answers other than the last output's"
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
_CANDIDATES = 100


def _margin(scores: FloatArray) -> FloatArray:
    """How far the two largest scores are apart, as the output has them."""
    top = np.partition(scores, -2, axis=1)[:, -2:]
    return np.asarray(top[:, 1] - top[:, 0], dtype=np.float64)


CERTAINTIES: Mapping[str, Callable[[FloatArray], FloatArray]] = {"probability": sureness, "margin": _margin}
"""How sure an output is of samples: the largest probability (softmax of scores), or how far the two largest scores are
apart."""


@dataclass(frozen=True)
class Exit:
    """An output at which samples leave; the last one takes all that come so far.

    Attributes:
        output: its name.
        share: of the samples of the proof that leave here, 0 to 1.
        differ: of all samples, those that leave here with another answer than the last output's.
        macs: multiply-accumulates up to here, with those of the exits before.
        seconds: the same in time, where times are known.
        tensors: what crosses if the rest is computed elsewhere.
        wire: their bytes.
    """

    output: str
    share: float
    differ: float
    macs: float
    seconds: float | None
    tensors: tuple[str, ...]
    wire: float


@dataclass(frozen=True)
class Exits:
    """Where samples may leave, and what is proven of it.

    Attributes:
        exits: from early to late.
        certainty: what is compared with the threshold: ``probability`` or ``margin``.
        threshold: a sample leaves at the first exit that is at least so sure.
        max_loss: what was promised.
        bound: what is proven of the share of answers that change.
        tested: how many thresholds were tested until one failed, of so many ``candidates``.
        candidates: thresholds, strict ones first.
        macs, seconds: what the last output takes alone, without any exit.
    """

    exits: tuple[Exit, ...]
    certainty: str
    threshold: float
    max_loss: float
    bound: Bound
    tested: int
    candidates: int
    macs: float
    seconds: float | None = None

    @property
    def early(self) -> float:
        """The share of samples that leave before the last output."""
        return 1.0 - self.exits[-1].share

    @property
    def mean_macs(self) -> float:
        """Multiply-accumulates of a sample on average."""
        return sum(one.share * one.macs for one in self.exits)

    @property
    def mean_seconds(self) -> float | None:
        """Seconds of a sample on average, where times are known."""
        return None if self.seconds is None else sum(one.share * (one.seconds or 0.0) for one in self.exits)

    @property
    def sentences(self) -> list[str]:
        """What is proven, and what is saved."""
        bound = self.bound
        saved = f"{long(self.mean_macs, 'MACs')} a sample on average instead of {long(self.macs, 'MACs')}"
        less = f"{percent(1 - self.mean_macs / self.macs)} less"
        if self.seconds is not None and self.mean_seconds is not None:
            saved += f" ({less}), {seconds(self.mean_seconds)} instead of {seconds(self.seconds)}"
            less = f"{percent(1 - self.mean_seconds / self.seconds)} less"
        return [
            f"Promise kept: {WHAT} at most {100 * self.max_loss:.2f} %, at {100 * bound.confidence:g} % confidence. On "
            f"{bound.samples:,} samples that the threshold was not chosen by it is {100 * bound.mean:.2f} %, and so at "
            f"most {100 * bound.upper:.2f} % in truth ({SOURCES[bound.kind]}).",
            f"{percentage(self.early)} of samples leave early: {saved} ({less}).",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        means = {"early": self.early, "mean_macs": self.mean_macs, "mean_seconds": self.mean_seconds}
        return {**asdict(self), "bound": self.bound.to_dict(), **means}


def early_exits(
    model: Analysis | Ledger,
    calibration: CalibrationSource | Samples,
    *,
    max_loss: float,
    confidence: float = 0.95,
    exits: Sequence[str] | None = None,
    certainty: str = "probability",
    times: Times | None = None,
) -> Exits:
    """The most samples that may leave early, where the answers that change are proven to be few.

    Args:
        model: the analysis of a model with several outputs that score the same classes, [N, C]; or its ledger.
        calibration: samples like those that it will see; labels are not needed.
        max_loss: the largest true share of samples whose answer is not the last output's.
        confidence: of that.
        exits: names of outputs from early to late; all outputs of one shape in the order of the graph if not given.
        certainty: ``probability`` or ``margin``.
        times: of a machine, for this model.

    Raises:
        UsageError: there are no such outputs, an early one saves nothing, or times are of another model.
        DataError: there are too few samples (the message says how many it takes), or they are made up.
        AnswersError: not even the strictest threshold keeps the promise.
    """
    PromiseOptions(max_loss=max_loss, confidence=confidence)
    if certainty not in CERTAINTIES:
        raise UsageError(unknown("certainty", certainty, list(CERTAINTIES)))
    ledger = model if isinstance(model, Ledger) else Ledger(model)
    names = _outputs(ledger, exits)
    together = ledger.graph.shapes.extents[names[0]][0]
    if together != 1:
        raise UsageError(
            f"the model takes {together} samples at once, and each leaves by itself: give it an open batch, or one of "
            "1 (--input-shape)"
        )
    route = _Route(ledger, names, times)
    source = ledger.analysis.model
    # Nothing is fitted: as few samples as can be go to that part.
    _, choosing, proving = collect_three(calibration, source, 1)
    if proving.made:
        raise DataError(f"synthetic samples ({proving.made}) prove nothing about real data: a promise takes real ones")
    require_samples("share", len(proving), max_loss, confidence)
    measure = CERTAINTIES[certainty]
    chosen_by, proven_on = (_Said.of(source, samples, names, measure) for samples in (choosing, proving))
    thresholds = chosen_by.thresholds()
    bounds: dict[float, Bound] = {}

    def holds(threshold: float) -> bool:
        losses = Losses(proven_on.lost(proven_on.leave(threshold)), "share", WHAT)
        bounds[threshold] = losses.bound(confidence)
        return bounds[threshold].upper <= max_loss

    passed = fixed_sequence(thresholds, holds)
    if not passed:
        first = bounds[thresholds[0]]
        raise AnswersError(
            f"the promise cannot be kept: where only the surest leave ({certainty} of {thresholds[0]:.4g} and more), "
            f"{WHAT} are {100 * first.mean:.2f} % of {first.samples:,} samples, and may be {100 * first.upper:.2f} % "
            f"at {100 * confidence:g} % confidence ({100 * max_loss:.2f} % was promised); promise less, or give more "
            "samples"
        )
    at = proven_on.leave(passed[-1])
    return Exits(
        exits=route.told(at, proven_on.lost(at)),
        certainty=certainty,
        threshold=passed[-1],
        max_loss=max_loss,
        bound=bounds[passed[-1]],
        tested=len(bounds),
        candidates=len(thresholds),
        macs=route.alone[0],
        seconds=route.alone[1],
    )


def exit_cuts(ledger: Ledger, exits: Sequence[str]) -> tuple[Cut, ...]:
    """Behind each exit but the last, the cut whose head gives all exits so far: what parts are made of."""
    heads = [ledger.flow.behind(exits[: at + 1]) for at in range(len(exits) - 1)]
    return tuple(Cut(ledger.flow.border(head), head) for head in heads)


@dataclass(frozen=True)
class _Said:
    """What K outputs say of N samples: classes [K, N], and how sure all but the last are, [K - 1, N]."""

    classes: IntArray
    sure: FloatArray

    @classmethod
    def of(
        cls, model: Model, samples: Samples, names: Sequence[str], measure: Callable[[FloatArray], FloatArray]
    ) -> _Said:
        """Run the model. Raises VerificationError, and DataError where an output is not one for each sample."""
        answers, _ = answers_of(model, samples, "the model")
        scores = []
        for name in names:
            found = answers.stacked(name) if name in answers.outputs else None
            if found is None or not np.isfinite(found).all():
                raise DataError(f"'{name}' does not give finite scores of the same classes for every sample")
            scores.append(found.reshape(len(found), -1))
        return cls(np.stack([one.argmax(axis=1) for one in scores]), np.stack([measure(one) for one in scores[:-1]]))

    def thresholds(self) -> list[float]:
        """Nested candidates, strict ones first: with each a hundredth more of these samples leave."""
        surest = self.sure.max(axis=0)
        shares = np.arange(1, _CANDIDATES + 1) / _CANDIDATES
        # What is tested is what is shown, in float32.
        found = np.quantile(surest, 1 - shares, method="higher").astype(np.float32)
        return [float(one) for one in np.unique(found)[::-1]]

    def leave(self, threshold: float) -> IntArray:
        """The exit at which each sample leaves, [N]: the first that is sure enough of it, or the last."""
        leaving = np.vstack([self.sure >= threshold, np.ones((1, self.sure.shape[1]), np.bool_)])
        return np.asarray(leaving.argmax(axis=0), dtype=np.int64)

    def lost(self, at: IntArray) -> FloatArray:
        """1 for each sample that leaves with another answer than the last output's, else 0."""
        return np.asarray(self.classes[at, np.arange(len(at))] != self.classes[-1], dtype=np.float64)


class _Route:
    """What it takes to come to each exit. Raises UsageError where an early one saves nothing."""

    def __init__(self, ledger: Ledger, names: Sequence[str], times: Times | None) -> None:
        each = None if times is None else ledger.seconds(times.of(ledger.analysis))
        flow = ledger.flow
        self._ledger, self._names = ledger, names
        self._cuts = (*exit_cuts(ledger, names), Cut((), flow.behind(names)))

        def cost(nodes: int) -> tuple[float, float | None]:
            return ledger.part(nodes).macs, None if each is None else float(each[ledger.mask(nodes)].sum())

        self._costs = [cost(cut.head) for cut in self._cuts]
        self.alone = cost(flow.behind(names[-1:]))
        for place, (name, (macs, _)) in enumerate(zip(names[:-1], self._costs, strict=False)):
            if self._cuts[place].head == self._cuts[place + 1].head:
                raise UsageError(
                    f"'{names[place + 1]}' is computed where '{name}' is: name exits from early to late, or one of both"
                )
            if macs >= self.alone[0]:
                ordered = ",".join(sorted(names, key=lambda one: ledger.part(flow.behind([one])).macs))
                raise UsageError(
                    f"leaving at '{name}' saves nothing: it takes {long(macs, 'MACs')}, and '{names[-1]}' alone "
                    f"{long(self.alone[0], 'MACs')}; name exits from early to late (by their work: --exits {ordered})"
                )

    def told(self, at: IntArray, lost: FloatArray) -> tuple[Exit, ...]:
        """The exits, with what of the samples leaves there."""
        found = []
        for place, (name, cut, (macs, time)) in enumerate(zip(self._names, self._cuts, self._costs, strict=True)):
            here = at == place
            wire = sum(self._ledger.bytes_of(tensor) for tensor in cut.tensors)
            differ = float(lost[here].sum() / len(at))
            found.append(Exit(name, float(here.mean()), differ, macs, time, cut.tensors, wire))
        return tuple(found)


def _outputs(ledger: Ledger, names: Sequence[str] | None) -> tuple[str, ...]:
    """The exits: as named, or all outputs of the one shape of scores that several have. Raises UsageError."""
    graph = ledger.graph
    shapes = {name: tuple(graph.shapes.extents.get(name, ())) for name in graph.outputs}
    said = ", ".join(f"'{name}' {'×'.join(map(str, shape)) or '(unknown)'}" for name, shape in shapes.items())
    if names is None:
        alike: dict[tuple[int, ...], list[str]] = {}
        for name, shape in shapes.items():
            if _scores(ledger, name, shape):
                alike.setdefault(shape, []).append(name)
        several = [found for found in alike.values() if len(found) > 1]
        if len(several) != 1:
            why = "several shapes are shared: name the exits" if several else "no two are float scores of one shape"
            raise UsageError(
                f"early exits are outputs of one shape [N, C] that answer the same question, and the model has {said}; "
                f"{why} (--exits EARLY,LATE)"
            )
        return tuple(several[0])
    for name in names:
        if name not in shapes:
            raise UsageError(unknown("output", name, list(shapes)))
    if len(set(names)) != len(names) or len(names) < 2:
        raise UsageError("name at least two outputs, each once, from early to late (--exits EARLY,LATE)")
    if len({shapes[name] for name in names}) > 1 or not all(_scores(ledger, name, shapes[name]) for name in names):
        raise UsageError(f"exits are float scores of one shape [N, C] with at least two classes; the model has {said}")
    return tuple(names)


def _scores(ledger: Ledger, name: str, shape: tuple[int, ...]) -> bool:
    """Whether an output is [N, C], with axes of extent 1 behind C at most."""
    kind = ledger.graph.shapes.elem_types.get(name, TensorProto.FLOAT)
    return kind in _FLOATS and len(shape) >= 2 and shape[1] > 1 and set(shape[2:]) <= {1}
