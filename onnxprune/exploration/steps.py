"""What happens to a model after pruning and before it is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from onnxprune.data import Data
    from onnxprune.model import Model
    from onnxprune.plans import Plan


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


def step_of(name: str, settings: Any) -> Step:
    """The step that a recorded run took. Raises ValueError if there is no such step."""
    if name == "nothing":
        return Nothing()
    raise ValueError(f"step '{name}' is not known")
