"""Whether what stands for a region is faster than it, measured: fewer products are not always less time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from onnxprune.errors import MeasurementError
from onnxprune.ir.engine import Engine
from onnxprune.ir.model import Model
from onnxprune.ir.timing import taking_turns
from onnxprune.pruning.plan import Replacement
from onnxprune.pruning.regions.candidates import Candidate, select
from onnxprune.pruning.regions.costs import ROUNDS, cut_out, noise_for
from onnxprune.pruning.substituting import replaced

_FASTER = 0.98
"""Share of the time that is still told from the same."""

Judge = Callable[[Replacement], bool]
"""Whether a replacement pays in time."""


def select_paying(
    found: Sequence[Candidate], wanted: float, judge: Judge, known: dict[Replacement, bool]
) -> tuple[Candidate, ...]:
    """What :func:`select` gives of those that pay; it is layers of low rank that are asked: more layers than before.

    Args:
        found: regions that may give way.
        wanted: what they are to save.
        judge: whether one pays.
        known: those that were judged; what is judged here is added.
    """
    while True:
        chosen = select([one for one in found if known.get(one.replacement, True)], wanted)
        new = [one.replacement for one in chosen if one.replacement.kind == "factors" and one.replacement not in known]
        if not new:
            return chosen
        known.update((one, judge(one)) for one in new)


def pays(model: Model, replacement: Replacement) -> bool:
    """Whether a region alone takes longer than what stands for it alone, in onnxruntime with one thread, in turns.

    Args:
        model: normalised.
        replacement: of a region that ``model`` has.
    """
    before = cut_out(model, replacement.entry, replacement.exit)
    after = replaced(before, [replacement])
    try:
        times = taking_turns([before, after], noise_for(before), ROUNDS, Engine())
    except MeasurementError:
        return True  # What cannot be timed alone is not known to be slower.
    return float(np.median(times[:, 1] / times[:, 0])) < _FASTER
