"""Latency on another machine, predicted from times that were recorded there: nothing is measured here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from onnxprune._display import seconds
from onnxprune.analysis.analyzing import Analysis
from onnxprune.analysis.cost import MetricFunction
from onnxprune.errors import UsageError
from onnxprune.latency.times import Times
from onnxprune.pruning.plan import Plan


@dataclass(frozen=True)
class Elsewhere:
    """What a model, and what comes of it, takes on another machine; a ``MetricSource`` of analyses.

    Layers are interpolated between the widths that were recorded; see :meth:`LatencyProfile.on` for all that was not.

    Attributes:
        times: as recorded there.
        file: where they were read.
        original: the analysis of the model that they are of.
    """

    times: Times
    file: str
    original: Analysis = field(repr=False)

    @classmethod
    def load(cls, file: str, original: Analysis) -> Elsewhere:
        """Read a file of times. Raises DataError where it holds none, UsageError where they are another model's."""
        times = Times.load(file)
        times.of(original)
        return cls(times, file, original)

    @property
    def multiple(self) -> int:
        """What kept counts had best be multiples of, there."""
        return self.times.profile.multiple

    @property
    def unpruned(self) -> float:
        """Seconds per run of the original, as measured there."""
        return self.times.profile.baseline.median

    @property
    def engine(self) -> str:
        """What ran the model there."""
        said = self.times.profile.identity
        kernels = said.get("provider", "?")
        runtime = f"{kernels} {said[kernels]}" if kernels in said else f"onnxruntime {said.get('onnxruntime', '?')}"
        return f"{said.get('threads', '?')} thread(s) of {runtime} on {said.get('processor', '?')}"

    def of(self, analysis: Analysis) -> MetricFunction:
        """Seconds as a function of kept counts, of the original or of what it is less some regions."""
        return self.times.profile.on(analysis, self.original)

    def told(self, plan: Plan) -> Foretold:
        """What is predicted of a plan. Raises UsageError where it was not planned with these times."""
        if "latency" not in plan.after:
            raise UsageError("the plan was made without these times; give --mode latency or --max-latency")
        return Foretold(self.unpruned, plan.after["latency"], plan.settings.get("max_latency"), self.file, self.engine)


@dataclass(frozen=True)
class Foretold:
    """Seconds per run on another machine: of the original as recorded there, and of the result as predicted.

    ``asked`` is the budget, if it was one in seconds; ``times`` the file of what was recorded, ``machine`` on what.
    """

    original: float
    predicted: float
    asked: float | None
    times: str
    machine: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; nothing was measured."""
        return {
            "asked": self.asked,
            "predicted": self.predicted,
            "measured": None,
            "original": self.original,
            "times": self.times,
            "machine": self.machine,
        }

    @property
    def sentences(self) -> list[str]:
        """What was predicted, from what, and that nothing was measured."""
        asked = "" if self.asked is None else f"asked {seconds(self.asked)}, "
        return [
            f"Latency: {asked}predicted {seconds(self.predicted)} ({self.original / self.predicted:.2f} × as fast as "
            f"the original's {seconds(self.original)}). Nothing was measured here: {self.times} tells what layers take "
            f"with {self.machine}, and between the widths recorded there it is interpolated; measure the result there."
        ]
