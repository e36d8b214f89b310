"""How much the outputs suffer when one group of channels shrinks: measured on calibration data, group by group.

Every group loses some fractions of its units, with the layers that read it refitted (or not), and the outputs are
compared with the original's. Allocation ``global`` takes these curves for what a removal loses; they see what a
score of single channels cannot, the way from the layer to the output.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.analysis.analyzing import Analysis
from onnxprune.analysis.atoms import Group
from onnxprune.data.fidelity import compare_outputs, outputs_of
from onnxprune.data.samples import Samples
from onnxprune.errors import UsageError
from onnxprune.ir.digest import model_digest
from onnxprune.ir.files import write_text
from onnxprune.ir.model import Model
from onnxprune.pruning.choosing import removed_by_axis
from onnxprune.pruning.compensation import compensate
from onnxprune.pruning.criteria import Criterion, Scoring, default_registry
from onnxprune.pruning.plan import Plan
from onnxprune.pruning.shrinking import Shrink

FRACTIONS = (0.25, 0.5, 0.75)
DEFAULT_COUNT = 64
_VERSION = 1


@dataclass(frozen=True)
class GroupSensitivity:
    """The damage to the outputs when a group loses these fractions of its units, and nothing else changes.

    ``layers`` are those that write to it. ``damage`` is the mean KL divergence of the class probabilities (nats), or
    for other outputs the squared error over the variance; of several outputs the largest.
    """

    group: int
    units: int
    layers: tuple[str, ...]
    fractions: tuple[float, ...]
    damage: tuple[float, ...]

    def losses(self) -> NDArray[np.float64]:
        """The damage with 0, 1, 2, ... units gone: straight lines between what was measured, never falling."""
        at = np.array([0.0, *self.fractions]) * self.units
        damage = np.maximum.accumulate([0.0, *self.damage])
        slope = (damage[-1] - damage[-2]) / max(at[-1] - at[-2], 1e-9)
        units = np.arange(self.units + 1)
        beyond = damage[-1] + np.maximum(slope, damage[-1] / max(at[-1], 1e-9)) * (units - at[-1])
        return np.asarray(np.where(units <= at[-1], np.interp(units, at, damage), beyond), dtype=np.float64)


@dataclass(frozen=True)
class Sensitivity:
    """The curves of all groups of one analysis, on so many samples, with channels in a criterion's order.

    They are :class:`~onnxprune.pruning.allocation.LossCurves`.
    """

    criterion: str
    refit: bool
    samples: int
    groups: tuple[GroupSensitivity, ...]

    def losses(self, groups: Sequence[Group], scored: Sequence[NDArray[np.float64]]) -> tuple[NDArray[np.float64], ...]:
        """Per group, what is lost with its first 0, 1, 2, ... units: half what scores say, half what was measured.

        ``scored`` are the losses by the criterion's scores. Both count the same in total, at half of every group's
        units. Measured alone, groups far from the output look harmless one by one, and are emptied together; scores
        alone do not see the way to the output.

        Raises:
            UsageError: the curves are those of other groups.
        """
        known = {curve.group: curve for curve in self.groups}
        if [(g.index, g.units) for g in groups] != [(c.group, c.units) for c in self.groups]:
            raise UsageError("the sensitivity was measured for another model, or with other options; scan it again")
        measured = [known[group.index].losses() for group in groups]
        halves = [sum(float(curve[len(curve) // 2]) for curve in curves) for curves in (scored, measured)]
        scale = halves[0] / halves[1] if halves[1] > 0 else 0.0
        return tuple(score + scale * damage for score, damage in zip(scored, measured, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data for JSON."""
        return asdict(self)


def scan_sensitivity(
    analysis: Analysis,
    samples: Samples,
    *,
    criterion: str | Criterion = "refit",
    fractions: Sequence[float] = FRACTIONS,
    refit: bool = True,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Sensitivity:
    """Shrink one group after the other and compare outputs.

    Args:
        analysis: of the model.
        samples: calibration samples.
        criterion: which channels of a group go first.
        fractions: of a group's units, ascending, between 0 and 1.
        refit: whether the layers that read the group are refitted before the outputs are compared.
        seed: of the choice of samples and positions.
        progress: called with the number of groups done and of all.

    Raises:
        UsageError: the fractions are not ascending between 0 and 1.
        DataError: an activation is not finite.
        VerificationError: onnxruntime does not run the model.
    """
    ascending = tuple(sorted(set(fractions)))
    if not ascending or ascending != tuple(fractions) or not (ascending[0] > 0 and ascending[-1] < 1):
        raise UsageError(f"fractions must ascend between 0 and 1, not {list(fractions)}")
    chooser = default_registry().find(criterion) if isinstance(criterion, str) else criterion
    scores = chooser.scores(Scoring(analysis, np.random.default_rng(seed), samples))
    wanted = outputs_of(analysis.model, samples, "the model")
    reports = {report.index: report.layers for report in analysis.groups}
    found = []
    for done, group in enumerate(analysis.coupling.groups):
        damage = []
        for fraction in ascending:
            units = min(round(fraction * group.units), group.units - 1)
            damage.append(_damage(analysis, samples, group.lowest(units, scores), wanted, refit) if units > 0 else 0.0)
        found.append(GroupSensitivity(group.index, group.units, reports[group.index], ascending, tuple(damage)))
        if progress is not None:
            progress(done + 1, len(analysis.coupling.groups))
    return Sensitivity(chooser.name, refit, len(samples), tuple(found))


def _damage(
    analysis: Analysis,
    samples: Samples,
    atoms: NDArray[np.int64],
    wanted: dict[str, NDArray[np.float64]],
    refit: bool,
) -> float:
    settings: dict[str, Any] = {"split": analysis.split.value, "state": dict(analysis.state)}
    settings["input_shapes"] = dict(analysis.shapes.bound.to_repeat)
    plan = Plan(removed_by_axis(analysis, atoms), settings)
    pruned = Shrink(plan, analysis.registry)(analysis.model).model
    if refit:
        pruned = compensate(pruned, analysis.model, plan, samples, direct=True).model
    got = outputs_of(pruned, samples, "the pruned model")
    compared = [compare_outputs(name, wanted[name], got[name]) for name in wanted if name in got]
    return max(output.error if output.kl is None else output.kl for output in compared)


@dataclass(frozen=True)
class SensitivityCache:
    """Scans on disk, by model, samples and criterion. Files that are damaged count as absent."""

    folder: Path

    def read(self, model: Model, samples: Samples, criterion: str) -> Sensitivity | None:
        """A scan that was kept, or None. Warns where its file is damaged."""
        path = self._path(model, samples, criterion)
        if not path.exists():
            return None
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data.pop("version") != _VERSION:
                return None
            groups = [
                GroupSensitivity(
                    int(g["group"]), int(g["units"]), tuple(g["layers"]), tuple(g["fractions"]), tuple(g["damage"])
                )
                for g in data["groups"]
            ]
            return Sensitivity(str(data["criterion"]), bool(data["refit"]), int(data["samples"]), tuple(groups))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            warnings.warn(f"{path} is damaged ({error}); scan the sensitivity again", stacklevel=2)
            return None

    def write(self, model: Model, samples: Samples, scan: Sensitivity) -> Path:
        """Keep a scan, and say where. Raises OSError where it cannot be written."""
        path = self._path(model, samples, scan.criterion)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(json.dumps({"version": _VERSION, **scan.to_dict()}, indent=1) + "\n", path)
        return path

    def _path(self, model: Model, samples: Samples, criterion: str) -> Path:
        key = hashlib.sha256(f"{model_digest(model)} {samples.digest()} {criterion}".encode()).hexdigest()
        return self.folder / "sensitivity" / f"{key[:32]}.json"
