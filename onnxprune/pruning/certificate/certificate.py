"""What a certificate says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from onnxprune._display import Table
from onnxprune.errors import VerificationError
from onnxprune.ir.comparing import TensorDifference

if TYPE_CHECKING:
    import pandas as pd

_MOST_SAID = 5


@dataclass(frozen=True)
class Unwitnessed:
    """Something whose fault no input would show: where it is, and why not."""

    where: str
    reason: str


@dataclass(frozen=True)
class Certificate:
    """The measured comparison of the pruned model with the masked original.

    ``outputs`` are the graph outputs, ``tensors`` how many tensors were compared in all, and ``failures`` those that
    differ, in the order of the graph; ``max_relative`` is the largest difference over the spread of its channel.
    ``changed`` are weights whose values are not the original's. ``unwitnessed`` is what no comparison could have
    noticed. ``approximate`` tells that groups were pruned across which the model normalises (the reference then
    normalises over kept channels only); ``samples`` counts the inputs, and ``replaced`` the regions that gave way,
    which are compared first: the original is then that in which numpy computes what stands for them. ``decisions``
    counts the values that the model compares with thresholds in these runs, and ``near`` those that rounding may decide
    otherwise elsewhere (here both models decide on the same values).
    """

    outputs: tuple[TensorDifference, ...]
    failures: tuple[TensorDifference, ...]
    tensors: int
    max_absolute: float
    max_relative: float
    tolerance: float
    samples: int
    approximate: bool
    unwitnessed: tuple[Unwitnessed, ...] = ()
    changed: tuple[str, ...] = ()
    replaced: int = 0
    decisions: int = 0
    near: int = 0

    @property
    def passed(self) -> bool:
        """Whether every compared tensor agrees within the tolerance, and all weights are the original's."""
        return not self.failures and not self.changed and self.tensors > 0

    @property
    def complete(self) -> bool:
        """Whether it passed, and could have noticed a fault anywhere."""
        return self.passed and not self.unwitnessed

    def __bool__(self) -> bool:
        return self.passed

    @property
    def sentences(self) -> tuple[str, ...]:
        """What was found, in words; the first one is the verdict."""
        if not self.passed:
            return (f"Certificate FAILED: {self._fault}.",)
        inputs = "a random input" if self.samples == 1 else f"{self.samples} random inputs"
        verdict = "passed" if self.complete else f"passed except for {len(self.unwitnessed)} unwitnessed"
        without = f", in which {self.replaced} region{'s' * (self.replaced > 1)} gave way" if self.replaced else ""
        first = (
            f"Certificate {verdict}: on {inputs}, all {self.tensors} tensors equal those of the masked original"
            f"{without}, by {self.max_relative:.1e} of the spread of a channel at most ({self.tolerance:.0e} allowed)."
        )
        more = len(self.unwitnessed) - _MOST_SAID
        named = [f"Not witnessed: {found.where}: {found.reason}." for found in self.unwitnessed[:_MOST_SAID]]
        return (first, *named, *([f"Not witnessed: {more} more."] if more > 0 else []), *self._decided)

    @property
    def _decided(self) -> tuple[str, ...]:
        if not self.near:
            return ()
        return (
            f"{self.near:,} of {self.decisions:,} values are so near to their thresholds that rounding may turn them "
            "over in another runtime; here both models decided on the same values.",
        )

    def require(self, *, accept_unwitnessed: bool = False) -> None:
        """Raise VerificationError where it did not pass, or could not have failed and that is not accepted."""
        if not self.passed:
            raise VerificationError(f"the pruned model differs from the masked original: {self._fault}")
        if self.unwitnessed and not accept_unwitnessed:
            first = self.unwitnessed[0]
            raise VerificationError(
                f"the pruned model is certified except for what no input can show: {first.where}: {first.reason}"
                + (f" (and {len(self.unwitnessed) - 1} more)" if len(self.unwitnessed) > 1 else "")
                + "; accept that (--accept-unwitnessed, accept_unwitnessed=True), or exclude the layer"
            )

    @property
    def _fault(self) -> str:
        if self.failures:
            first = self.failures[0]
            more = len(self.failures) - 1
            return str(first) + (f"; {more} further tensor{'s differ' if more > 1 else ' differs'}" if more else "")
        if self.changed:
            more = len(self.changed) - 1
            return (
                f"the values of weight '{self.changed[0]}'"
                + (f" and {more} more" if more else "")
                + (" are not the original's at the kept positions (trained or refitted since?)")
            )
        return "no tensor could be compared"

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data for JSON."""
        return {**asdict(self), "passed": self.passed, "complete": self.complete}

    def to_pandas(self) -> pd.DataFrame:
        """A row per output, and one for every tensor that differs. Raises UsageError where pandas is missing."""
        columns = ("name", "node", "absolute", "relative", "passed")
        return Table(columns, tuple(tuple(getattr(o, c) for c in columns) for o in self._shown)).to_pandas()

    def __repr__(self) -> str:
        """The verdict in a few lines."""
        return "\n  ".join(("Certificate", *self.sentences))

    def _repr_html_(self) -> str:
        """For notebooks: the verdict, and how far each output is off, and whatever else differs."""
        rows = tuple((o.name, o.node, f"{o.absolute:.1e}", f"{o.relative:.1e}") for o in self._shown)
        heads = ("tensor", "node", "largest difference", "of its spread")
        return Table(heads, rows, " ".join(self.sentences)).to_html()

    @property
    def _shown(self) -> tuple[TensorDifference, ...]:
        return tuple(dict.fromkeys((*self.outputs, *self.failures)))
