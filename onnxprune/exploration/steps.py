"""What happens to a model after pruning and before it is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from onnxprune.pruning.options import IntegerOptions

if TYPE_CHECKING:
    from onnxprune.data import Data
    from onnxprune.ir.model import Model
    from onnxprune.pruning.plan import Plan
    from onnxprune.torch import Recipe


class Step(Protocol):
    """A frozen value that can be sent to other processes."""

    @property
    def name(self) -> str:
        """How the step is called in tables and on the command line."""

    def to_dict(self, seed: int) -> Mapping[str, Any]:
        """Plain data: all that decides what the step does, given the seed of the run."""

    def __call__(self, pruned: Model, original: Model, plan: Plan, data: Data, seed: int) -> Model:
        """The model that is judged."""


@dataclass(frozen=True)
class Nothing:
    """The pruned model is judged as it is."""

    @property
    def name(self) -> str:
        """``nothing``."""
        return "nothing"

    def to_dict(self, seed: int) -> Mapping[str, Any]:
        """Nothing to decide."""
        return {}

    def __call__(self, pruned: Model, original: Model, plan: Plan, data: Data, seed: int) -> Model:
        return pruned


@dataclass(frozen=True)
class Train:
    """The pruned model is trained; the seed of the run is that of the training.

    ``recipe`` holds the arguments of :class:`onnxprune.torch.Recipe` that are not as they are there, as pairs.
    """

    recipe: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """``train``."""
        return "train"

    def to_dict(self, seed: int) -> Mapping[str, Any]:
        """The whole recipe."""
        return {key: value for key, value in self._recipe(seed).to_dict().items() if key != "seed"}

    def __call__(self, pruned: Model, original: Model, plan: Plan, data: Data, seed: int) -> Model:
        from onnxprune.torch import train

        # Held-out samples are for the judge alone.
        return train(pruned, replace(data, test=None), self._recipe(seed)).model

    def _recipe(self, seed: int) -> Recipe:
        from onnxprune.torch import Recipe

        return Recipe(**{**dict(self.recipe), "seed": seed})


@dataclass(frozen=True)
class Compensate:
    """The remaining weights make good what was removed; see :func:`onnxprune.pruning.compensation.compensate`."""

    method: str = "refit"
    samples: int = 256

    @property
    def name(self) -> str:
        """``compensate``."""
        return "compensate"

    def to_dict(self, seed: int) -> Mapping[str, Any]:
        """Method and number of samples."""
        return {"method": self.method, "samples": self.samples}

    def __call__(self, pruned: Model, original: Model, plan: Plan, data: Data, seed: int) -> Model:
        from onnxprune.ir.provenance import steps_of
        from onnxprune.pruning.compensation import compensate
        from onnxprune.pruning.history import with_repair
        from onnxprune.pruning.options import JobOptions

        done = compensate(pruned, original, plan, data, method=self.method, samples=self.samples, seed=seed)
        return with_repair(done.model, pruned, done, JobOptions()) if steps_of(pruned) else done.model


@dataclass(frozen=True)
class Float(Nothing):
    """The numbers stay as they are."""

    @property
    def name(self) -> str:
        """``float``."""
        return "float"


@dataclass(frozen=True)
class Int8:
    """Layers become 8-bit integers where that is measured to be faster, as in ``prune --int8``.

    ``samples`` are what ranges follow from, ``threads`` those that times are measured with.
    """

    samples: int = 256
    threads: int = 1

    @property
    def name(self) -> str:
        """``int8``."""
        return "int8"

    def to_dict(self, seed: int) -> Mapping[str, Any]:
        """Number of samples, and threads."""
        return {"samples": self.samples, "threads": self.threads}

    def __call__(self, pruned: Model, original: Model, plan: Plan, data: Data, seed: int) -> Model:
        from onnxprune.data.samples import collect_both
        from onnxprune.ir.engine import Engine
        from onnxprune.ir.provenance import steps_of
        from onnxprune.pruning.history import with_integers
        from onnxprune.pruning.quantization.quantizing import HELD_OUT, quantise_model

        # Held-out samples are for the judge alone.
        seen = replace(data, test=None)
        fit, others, _ = collect_both(seen, pruned, self.samples, evaluate=HELD_OUT, seed=seed)
        options = IntegerOptions(calibration=fit)
        done = quantise_model(pruned, fit, others, options, engine=Engine(self.threads))
        return with_integers(done, options) if steps_of(pruned) else done.model


def step_of(name: str, settings: Mapping[str, Any]) -> Step:
    """The step that a recorded run took. Raises ValueError if there is no such step."""
    if name == "nothing":
        return Nothing()
    if name == "float":
        return Float()
    if name == "int8":
        return Int8(int(settings["samples"]), int(settings["threads"]))
    if name == "compensate":
        return Compensate(str(settings["method"]), int(settings["samples"]))
    if name == "train":
        return Train(tuple(sorted(settings.items())))
    raise ValueError(f"step '{name}' is not known")
