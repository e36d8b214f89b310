"""The main jobs as passes: what pipelines call ``prune``, ``substitute``, ``factorize``, ``quantize`` and ``keep``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from onnxprune.ir.model import Model
from onnxprune.ops.substitutes import WAYS
from onnxprune.passes.base import Pass, PassResult
from onnxprune.passes.normalize import normalize
from onnxprune.pruning.compensation import compensate
from onnxprune.pruning.keeping import keep
from onnxprune.pruning.options import CompressOptions, Given, Kind, options_of
from onnxprune.pruning.pipeline import run
from onnxprune.pruning.plan import Plan
from onnxprune.pruning.quantization.options import QuantizeOptions
from onnxprune.pruning.quantization.quantizing import quantize
from onnxprune.pruning.substituting import replaced

_TYPES: Mapping[Kind, Any] = {
    "fraction": float,
    "share": float,
    "quantity": float,
    "duration": float,
    "names": list[str],
    "floors": Mapping[str, float],
    "state": Mapping[str, str],
    "rounding": int | str,
}


def _signature(kind: type[Given]) -> inspect.Signature:
    """The options of a class as a pipeline may write them."""
    said, parameters = options_of(kind), []
    for name, parameter in inspect.signature(kind).parameters.items():
        option = said.get(name)
        if option is not None and option.kind != "object":
            plain = str if parameter.default is None else type(parameter.default)
            parameters.append(parameter.replace(annotation=_TYPES.get(option.kind, plain)))
    return inspect.Signature(parameters)


def _documented(init: Callable[..., None], kind: type[Given]) -> None:
    """Say of every option, in the docstring of a constructor, what it does."""
    init.__doc__ = "Args:\n" + "\n".join(f"    {name}: {option.help}" for name, option in options_of(kind).items())


class Prune(Pass):
    """Remove channels until a budget is met, prove the result, and repair it where there is data."""

    name = "prune"
    claims_equality = False
    __signature__ = _signature(CompressOptions)

    def __init__(self, **options: Any) -> None:
        self._options = CompressOptions(**options)
        if self._options.max_loss is None:
            self._options.check_budget()
        else:
            self._options.check_alone(self._options, self._options)

    def run(self, model: Model) -> PassResult:
        """Do the main job. Raises OnnxPruneError where the budget, the data or the certificate stands against it."""
        made = run(model, self._options, self._options, promise=self._options)
        return PassResult(made.model, bool(made.plan))


_documented(Prune.__init__, CompressOptions)


class _Replace(Pass):
    """Let what a plan names under ``replaced`` give way, as far as this pass does it, and fit what stands there."""

    name = "replace"
    claims_equality = False
    kinds: ClassVar[frozenset[str]] = frozenset()
    """What this pass does of a plan."""

    def __init__(self, *, plan: str | Plan, calibrate: str | None = None) -> None:
        """Choose the plan.

        Args:
            plan: the plan, or the file that holds it; only its ``replaced`` counts.
            calibrate: samples to fit the new layers to; without, they hold random weights and want training.
        """
        found = plan if isinstance(plan, Plan) else Plan.load(plan)
        self._plan = replace(found, removed={}, replaced=tuple(one for one in found.replaced if one.kind in self.kinds))
        self._calibrate = calibrate

    def run(self, model: Model) -> PassResult:
        """Replace. Raises PlanError where a region is not there, DataError where samples do not fit the model."""
        base = normalize(model)
        result = replaced(base, self._plan.replaced)
        if self._calibrate is not None and self._plan.new_layers:
            result = compensate(result, base, self._plan, self._calibrate).model
        return PassResult(result, modified=result is not model)


class Substitute(_Replace):
    """Let the regions that a plan names give way to a single layer, or to none."""

    name = "substitute"
    kinds = frozenset(WAYS) - {"factors"}


class Factorize(_Replace):
    """Make several layers of low rank of each layer that a plan names so."""

    name = "factorize"
    kinds = frozenset({"factors"})


class Quantize(Pass):
    """Compute layers with 8-bit integers where that is faster, and prove what was written."""

    name = "quantize"
    claims_equality = False
    __signature__ = _signature(QuantizeOptions)

    def __init__(self, **options: Any) -> None:
        self._options = QuantizeOptions(**options)

    def run(self, model: Model) -> PassResult:
        """Quantise. Raises OnnxPruneError where the data or the certificate stands against it."""
        return PassResult(quantize(model, **self._options.given()).model, modified=True)


_documented(Quantize.__init__, QuantizeOptions)


class Keep(Pass):
    """Keep only some classes, or some positions of the outputs; what made the others goes."""

    name = "keep"
    claims_equality = False

    def __init__(self, *, classes: Sequence[int | str] = (), positions: Sequence[str] = ()) -> None:
        """Choose what is kept.

        Args:
            classes: by number, or by the name that the model's metadata gives.
            positions: positions of an axis of an output, like "logits[1]=0,5,10-19".
        """
        self._classes, self._positions = classes, positions

    def run(self, model: Model) -> PassResult:
        """Keep them. Raises OnnxPruneError where they do not exist, or the certificate stands against it."""
        return PassResult(keep(model, classes=self._classes, positions=self._positions).model, modified=True)
