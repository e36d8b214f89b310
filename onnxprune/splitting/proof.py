"""The certificate of a split: the parts, run one after the other, give what the whole gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from onnx import TensorProto, helper

from onnxprune.analysis.analyzing import Analysis
from onnxprune.data.samples import Samples
from onnxprune.errors import VerificationError
from onnxprune.ir.comparing import TensorDifference, compare
from onnxprune.ir.model import Model
from onnxprune.ir.session import Arrays, Session
from onnxprune.pruning.certificate.stimuli import LAWS, inputs
from onnxprune.pruning.certificate.verifying import check
from onnxprune.splitting.wire import Code

TOLERANCE = 1e-6
_STEP = 2


@dataclass(frozen=True)
class SplitCertificate:
    """The measured comparison of parts, run in turn, with the whole.

    Attributes:
        max_relative: the largest difference of a graph output, over its spread.
        failures: the outputs that differ.
        shapes: the input shapes that were run.
        refused: shapes that the whole itself does not run with.
        samples: how many inputs.
        tolerance: what is allowed.
        wire: the largest difference of what is received from what was sent, over what rounding allows; None where all
            crosses as it is.
    """

    max_relative: float
    failures: tuple[TensorDifference, ...]
    shapes: tuple[Mapping[str, tuple[int, ...]], ...]
    refused: tuple[Mapping[str, tuple[int, ...]], ...]
    samples: int
    tolerance: float
    wire: float | None = None

    @property
    def passed(self) -> bool:
        """Whether all outputs agree."""
        return not self.failures and self.samples > 0

    @property
    def sentence(self) -> str:
        """What was found, in words."""
        if not self.passed:
            return f"Certificate FAILED: {self.failures[0]}."
        count = len(self.shapes)
        extents = f" of {count} shapes" if count > 1 else ""
        received = (
            "" if self.wire is None else f" What is received is off by {self.wire:.2f} of what rounding allows at most."
        )
        return (
            f"Certificate passed: on {self.samples} random inputs{extents}, the parts in turn equal the whole, by "
            f"{self.max_relative:.1e} of the spread of an output at most ({self.tolerance:.0e} allowed).{received}"
        )

    def require(self) -> None:
        """Raise VerificationError where it did not pass."""
        if not self.passed:
            raise VerificationError(f"the parts do not give what the whole does: {self.failures[0]}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"passed": self.passed, **asdict(self)}


class Chain:
    """Parts loaded to run one after the other: each finds what earlier ones made, and the inputs of the whole."""

    def __init__(self, parts: Sequence[Model]) -> None:
        self._inputs = [[value.name for value in part.graph.input] for part in parts]
        self._sessions = [Session(part, f"part {at}", literal=True) for at, part in enumerate(parts, 1)]

    def run(self, given: Arrays) -> Arrays:
        """All that parts make, by name, with the inputs. Raises VerificationError where one does not run."""
        known = dict(given)
        for session, names in zip(self._sessions, self._inputs, strict=True):
            known.update(session.run({name: known[name] for name in names if name in known}))
        return known


def certify_split(
    original: Model,
    analysis: Analysis,
    parts: Sequence[Model],
    *,
    codes: Sequence[Code] = (),
    samples: Samples | None = None,
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> SplitCertificate:
    """Run parts and the whole, on random inputs of several shapes where dimensions are open.

    Args:
        original: the model as it was given.
        analysis: of it.
        parts: in the order in which they run.
        codes: of tensors that cross in fewer bytes; the original rounds them, too, and tells both values.
        samples: what to look at these on beside random inputs.
        tolerance: the largest difference of an output that is none, relative to its spread.
        seed: of the inputs.

    Raises:
        VerificationError: onnx.checker or onnxruntime refuses a part, or no shape runs.
    """
    for at, part in enumerate(parts, 1):
        check(part, f"part {at}")
    whole, chain = Session(_watched(original, codes), "the model", literal=True), Chain(parts)
    wanted_names = [value.name for value in original.graph.output]
    failures: list[TensorDifference] = []
    received: list[TensorDifference] = []
    ran, refused, count, worst = [], [], 0, 0.0
    for place, shapes in enumerate(_shapes(analysis)):
        try:
            feeds = [inputs(analysis.model, shapes, seed + at, law) for at, law in enumerate(LAWS[:2])]
            wanted = [whole.run(feed) for feed in feeds]
        except VerificationError:
            if not place:
                raise
            refused.append(shapes)
            continue
        ran.append(shapes)
        for feed, right in zip(feeds, wanted, strict=True):
            found = chain.run(feed)
            count += 1
            for name in wanted_names:
                one = compare_values(name, right[name], found.get(name), tolerance)
                worst = max(worst, one.relative)
                failures += [] if one.passed else [one]
            received += [code.difference(right[code.name], right[code.received]) for code in codes]
    for batch in samples.batches() if codes and samples is not None else ():
        right = whole.run(batch)
        received += [code.difference(right[code.name], right[code.received]) for code in codes]
    failures += [one for one in received if not one.passed]
    wire = max((one.relative for one in received), default=None)
    return SplitCertificate(worst, tuple(failures), tuple(ran), tuple(refused), count, tolerance, wire)


def _watched(model: Model, codes: Sequence[Code]) -> Model:
    """The model with what is sent and what is received as outputs, too."""
    if not codes:
        return model
    draft = model.edit()
    there = {value.name for value in draft.graph.output}
    names = [name for code in codes for name in (code.name, code.received) if name not in there]
    draft.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    return draft.finish()


def compare_values(name: str, wanted: Any, found: Any, tolerance: float) -> TensorDifference:
    """Compare an output, be it a tensor or a sequence of them."""
    if found is None:
        return _odd(name, "is made by no part")
    if isinstance(wanted, list):
        pairs = [compare(name, "a sequence", a, b, None, tolerance) for a, b in zip(wanted, found, strict=False)]
        if len(wanted) != len(found):
            return TensorDifference(
                name, "a sequence", float("inf"), float("inf"), passed=False, reason="is not as long"
            )
        return max(pairs, key=lambda one: one.relative, default=TensorDifference(name, "", 0.0, 0.0, passed=True))
    return compare(name, "an output", wanted, found, None, tolerance)


def _odd(name: str, reason: str) -> TensorDifference:
    return TensorDifference(name, "an output", float("inf"), float("inf"), passed=False, reason=reason)


def _shapes(analysis: Analysis) -> Iterator[Mapping[str, tuple[int, ...]]]:
    """The shapes of the analysis, and others where dimensions are open: batches, and all."""
    shapes = analysis.shapes
    yield dict(shapes.binding)
    free = shapes.bound.free
    if not free:
        return
    batch = {
        name: tuple(extent + (_STEP if not dim and (name, 0) in free else 0) for dim, extent in enumerate(shape))
        for name, shape in shapes.binding.items()
    }
    if batch != dict(shapes.binding):
        yield batch
    if shapes.other_binding is not None:
        yield dict(shapes.other_binding)
