"""A plan: which positions go from which axes. Pure data, readable, editable."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune._display import TOTALS, Table, long, percent, seconds, totals_table
from onnxprune.errors import PlanError, unknown
from onnxprune.ir.files import write_text
from onnxprune.ir.plain import is_number, parse
from onnxprune.ops.substitutes import RESIZED, WAYS, Way

if TYPE_CHECKING:
    import pandas as pd

_FORMAT = "onnxprune-plan"
_VERSION = 1
_LARGEST = 2**63 - 1
_REPLACED = "replaced"
_SHAPES: tuple[tuple[str, Any], ...] = (("kernel", []), ("rank", 0), ("inner", 0))
_UNDERSTOOD: frozenset[str] = frozenset((_REPLACED,))
"""What plans may require of a reader, beyond the schema; keys that it does not know it ignores."""

Removed = Mapping[str, Mapping[int, tuple[int, ...]]]


@dataclass(frozen=True)
class Replacement:
    """A region of the normalised model, from its entry to its exit, and the kind of what stands for it.

    ``kernel`` is the window of a layer that has one (of ``resized``, the extents of the maps that the region computes
    with), ``rank`` the channels that the last of several factors reads and ``inner`` those that the window of three
    looks at; see ``onnxprune.ops.substitutes``. ``saved`` and ``error`` tell why it was chosen: what it takes from a
    metric, and the squared error that it was foreseen to make there, over the variance.
    """

    entry: str
    exit: str
    kind: Way
    kernel: tuple[int, ...] = ()
    rank: int = 0
    inner: int = 0
    saved: Mapping[str, float] = field(default_factory=dict, compare=False)
    error: float | None = field(default=None, compare=False)

    def __str__(self) -> str:
        window = "×".join(map(str, self.kernel))
        rank = f" of rank {f'{self.inner} and ' if self.inner else ''}{self.rank}" if self.rank else ""
        return f"{self.entry} → {self.exit}: {self.kind}{f' {window}' if window else ''}{rank}"

    @property
    def savings(self) -> str:
        """What it takes from which metric, in words."""
        counted = {metric: long(amount, TOTALS[metric][1]) for metric, amount in self.saved.items() if metric in TOTALS}
        told = {metric: counted.get(metric, seconds(amount)) for metric, amount in self.saved.items()}
        return ", ".join(f"{TOTALS.get(metric, (metric, ''))[0]} −{amount}" for metric, amount in told.items())

    @property
    def words(self) -> str:
        """What it is, what it saves, and the error that was foreseen."""
        told = [self.savings] if self.saved else []
        if self.error is not None:
            told.append(f"error {percent(self.error)} of the variance there")
        return f"{self} ({', '.join(told)})" if told else str(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        found: dict[str, Any] = {"entry": self.entry, "exit": self.exit, "kind": self.kind, "kernel": list(self.kernel)}
        more = {"rank": self.rank, "inner": self.inner, "saved": dict(self.saved)}
        found |= {name: value for name, value in more.items() if value}
        return found if self.error is None else {**found, "error": self.error}

    @classmethod
    def from_dict(cls, data: Any) -> Replacement:
        """The inverse of :meth:`to_dict`. Raises PlanError where it is none."""
        known = isinstance(data, Mapping) and all(isinstance(data.get(key), str) for key in ("entry", "exit", "kind"))
        window, rank, inner = (data.get(key, of) for key, of in _SHAPES) if known else (None, 0, 0)
        if (
            not isinstance(window, list)
            or not all(type(extent) is int and extent >= 0 for extent in (rank, inner))
            or not all(type(extent) is int and extent > 0 for extent in window)
        ):
            raise PlanError('each of the plan\'s "replaced" must have an entry, an exit, a kind, and maybe a kernel')
        if data["kind"] not in WAYS:
            raise PlanError(unknown("the plan's replacement", data["kind"], WAYS))
        saved, error = data.get("saved", {}), data.get("error")
        if not isinstance(saved, Mapping) or not all(map(is_number, saved.values())):
            raise PlanError('what a replacement of the plan "saved" must map metrics to numbers')
        told = error if is_number(error) else None
        return cls(data["entry"], data["exit"], data["kind"], tuple(window), rank, inner, saved, told)


@dataclass(frozen=True)
class Plan:
    """Removed positions per tensor and axis of the normalised model, and how they were chosen.

    ``removed`` maps tensor name → dimension → ascending positions, for weights and activations alike. A weight of a
    grouped convolution lists its per-group dimension only where every group loses the same relative positions;
    where they differ, the positions follow from the input channels that are listed with the input tensor.
    Tensors inside bodies (If, Loop, Scan) go by their names; where a name occurs more than once in the model, by
    ``<node>/<attribute>:<name>``, such as ``If_0/then_branch:conv``, which the normalised model gives them.
    ``settings`` records the arguments of :func:`onnxprune.plan`; ``before`` and ``after`` the totals.
    Regions in ``replaced`` give way first; ``removed`` speaks of the model that this leaves.
    """

    removed: Removed
    settings: Mapping[str, Any] = field(default_factory=dict)
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)
    replaced: tuple[Replacement, ...] = ()

    @property
    def factored(self) -> tuple[Replacement, ...]:
        """Those of ``replaced`` that are single layers of which several of low rank are made."""
        return tuple(one for one in self.replaced if one.kind == "factors")

    @property
    def resized(self) -> tuple[Replacement, ...]:
        """Those of ``replaced`` that compute what they did, on maps of other extents."""
        return tuple(one for one in self.replaced if one.kind == RESIZED)

    @property
    def new_layers(self) -> int:
        """How many regions give way to layers that have weights of their own."""
        return sum(one.kind not in ("nothing", "identity", RESIZED) for one in self.replaced)

    @property
    def split(self) -> str:
        """How Reshapes were treated by the analysis that the plan was made with; it decides what is coupled."""
        return str(self.settings.get("split", "finest"))

    @property
    def exact_norm(self) -> bool:
        """Whether normalisations over removed positions compute with the statistics of all of them."""
        return self.settings.get("exact_norm") is True

    @property
    def state(self) -> dict[str, str]:
        """The graph outputs that are fed to graph inputs in the next run, by input; they shrink together."""
        return dict(self.settings.get("state", {}))

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """The input shapes that were given when the plan was made."""
        return {str(name): tuple(shape) for name, shape in self.settings.get("input_shapes", {}).items()}

    def for_inputs(self, shapes: Mapping[str, tuple[int, ...]]) -> Plan:
        """This plan, to be applied under other input shapes."""
        given = {name: list(shape) for name, shape in shapes.items()}
        return replace(self, settings={**self.settings, "input_shapes": given})

    def __bool__(self) -> bool:
        return bool(self.removed or self.replaced)

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain data for JSON."""
        also = {"requires": [_REPLACED], _REPLACED: [one.to_dict() for one in self.replaced]} if self.replaced else {}
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "settings": dict(self.settings),
            "before": dict(self.before),
            "after": dict(self.after),
            **also,
            "removed": {
                tensor: {str(dim): list(positions) for dim, positions in axes.items()}
                for tensor, axes in self.removed.items()
            },
        }

    def to_pandas(self) -> pd.DataFrame:
        """A row per axis that loses positions. Raises UsageError where pandas is not installed."""
        rows = tuple(
            (tensor, axis, len(positions), positions)
            for tensor, axes in self.removed.items()
            for axis, positions in axes.items()
        )
        return Table(("tensor", "axis", "removed", "positions"), rows).to_pandas()

    def __repr__(self) -> str:
        """One line; the positions are in ``removed``."""
        axes = sum(len(of_tensor) for of_tensor in self.removed.values())
        return f"Plan({axes} axes of {len(self.removed)} tensors lose positions, settings={dict(self.settings)})"

    def _repr_html_(self) -> str:
        """For notebooks: the settings, and the totals before and after."""
        axes = sum(len(of_tensor) for of_tensor in self.removed.values())
        settings = ", ".join(
            f"{name} {value if isinstance(value, (str, int, float)) else json.dumps(value)}"
            for name, value in self.settings.items()
        )
        caption = f"Plan: {axes} axes of {len(self.removed)} tensors lose positions"
        return totals_table(self.before, self.after, caption + (f" ({settings})" if settings else "")).to_html()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        """The plan that :meth:`to_dict` gave. Raises PlanError if the data is not a plan."""
        if not isinstance(data, Mapping) or data.get("format") != _FORMAT:
            raise PlanError("this is not an onnxprune plan; write one with 'onnxprune prune --plan-out' or Plan.save")
        if data.get("version") != _VERSION:
            raise PlanError(f"plan version {data.get('version')} is not supported; this onnxprune reads {_VERSION}")
        unknown = [name for name in data.get("requires", []) if name not in _UNDERSTOOD]
        if unknown:
            raise PlanError(
                f"the plan requires {', '.join(map(str, unknown))}, which this onnxprune does not know; update it"
            )
        try:
            removed = {
                str(tensor): {_dimension(dim): _positions(tensor, dim, at) for dim, at in axes.items()}
                for tensor, axes in data["removed"].items()
            }
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PlanError(
                f"the plan's 'removed' must map tensor names to axes to lists of positions ({error})"
            ) from error
        settings, before, after = (_mapping(data, key) for key in ("settings", "before", "after"))
        _check_shapes(settings.get("input_shapes", {}))
        _check_state(settings.get("state", {}))
        for name, totals in (("before", before), ("after", after)):
            odd = [key for key, value in totals.items() if not is_number(value)]
            if odd:
                raise PlanError(f"the plan's '{name}' has {totals[odd[0]]!r} for {odd[0]!r}, which is no number")
        replaced = data.get(_REPLACED, [])
        if not isinstance(replaced, list):
            raise PlanError("the plan's 'replaced' must be a list of regions")
        return cls(removed, settings, before, after, tuple(map(Replacement.from_dict, replaced)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan as JSON, one axis per line."""
        data = self.to_dict()
        removed = data.pop("removed")
        head = json.dumps(data, indent=2)[:-2]
        rows = [
            f"    {json.dumps(tensor)}: {{" + ", ".join(f'"{d}": {json.dumps(p)}' for d, p in axes.items()) + "}"
            for tensor, axes in removed.items()
        ]
        text = head + ',\n  "removed": {\n' + ",\n".join(rows) + "\n  }\n}\n"
        try:
            write_text(text, Path(path))
        except OSError as error:
            raise PlanError(f"cannot write plan {os.fspath(path)}: {error.strerror}") from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """Read a plan. Raises PlanError if the file cannot be read or is no plan."""
        try:
            data = parse(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise PlanError(f"cannot read plan {os.fspath(path)}: {error.strerror}") from error
        except ValueError as error:
            raise PlanError(f"plan {os.fspath(path)} is not valid JSON, or no plan: {error}") from error
        return cls.from_dict(data)


@dataclass(frozen=True)
class Difference:
    """One way in which two plans differ: where, and what each has there (None: nothing)."""

    where: str
    before: Any
    after: Any

    @property
    def words(self) -> str:
        """What each has."""
        if isinstance(self.before, tuple) or isinstance(self.after, tuple):
            first, second = set(self.before or ()), set(self.after or ())
            parts = [("also removes", sorted(second - first)), ("keeps", sorted(first - second))]
            return "; ".join(f"the second {verb} {_ranges(at)}" for verb, at in parts if at)
        return f"{self.before!r} in the first, {self.after!r} in the second"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"where": self.where, "before": self.before, "after": self.after}


def differences(first: Plan, second: Plan) -> tuple[Difference, ...]:
    """How two plans differ: in what is removed, axis by axis, and in their settings."""
    found = []
    for name in dict.fromkeys((*first.settings, *second.settings)):
        pair = first.settings.get(name), second.settings.get(name)
        if pair[0] != pair[1]:
            found.append(Difference(f"setting {name}", *pair))
    ways = [{(one.entry, one.exit): str(one) for one in plan.replaced} for plan in (first, second)]
    for ends in dict.fromkeys((*ways[0], *ways[1])):
        if ways[0].get(ends) != ways[1].get(ends):
            found.append(Difference(f"region {' → '.join(ends)}", ways[0].get(ends), ways[1].get(ends)))
    for tensor in dict.fromkeys((*first.removed, *second.removed)):
        axes = first.removed.get(tensor, {}), second.removed.get(tensor, {})
        for dim in sorted({*axes[0], *axes[1]}):
            at = axes[0].get(dim, ()), axes[1].get(dim, ())
            if at[0] != at[1]:
                found.append(Difference(f"'{tensor}' axis {dim}", *at))
    return tuple(found)


def _ranges(positions: list[int]) -> str:
    """Ascending positions in words: ``3-7, 9``."""
    parts: list[list[int]] = []
    for at in positions:
        if parts and parts[-1][1] == at - 1:
            parts[-1][1] = at
        else:
            parts.append([at, at])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def schema() -> dict[str, Any]:
    """The JSON Schema of plan files."""
    from importlib.resources import files

    found: dict[str, Any] = json.loads(files("onnxprune.pruning").joinpath("plan.schema.json").read_text("utf-8"))
    return found


def _dimension(dim: Any) -> int:
    number = int(dim)
    if str(number) != str(dim):
        raise ValueError(f"{dim!r} is no dimension")
    return number


def _positions(tensor: str, dim: str, at: Any) -> tuple[int, ...]:
    if not isinstance(at, list) or any(isinstance(p, bool) or not isinstance(p, int) for p in at):
        raise ValueError(f"positions of {tensor}[{dim}] are not a list of integers")
    outside = [p for p in at if not -_LARGEST <= p <= _LARGEST]
    if outside:
        raise ValueError(f"{tensor}[{dim}] cannot have a position {outside[0]}")
    return tuple(sorted(set(at)))


def _mapping(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = data.get(key, {})
    if not isinstance(found, Mapping):
        raise PlanError(f"the plan's '{key}' must map names to values; take it out, or restore what it was")
    return found


def _check_state(state: Any) -> None:
    """See that recorded state maps inputs to outputs. Raises PlanError."""
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in (*state, *state.values())):
        raise PlanError('the plan\'s "state" must map input names to output names, like {"h0": "hn"}')


def _check_shapes(shapes: Any) -> None:
    """See that recorded input shapes are what ``analyze`` takes. Raises PlanError."""
    lists = list(shapes.values()) if isinstance(shapes, Mapping) else [None]
    if not all(isinstance(shape, list) and all(type(extent) is int for extent in shape) for shape in lists):
        raise PlanError('the plan\'s "input_shapes" must map input names to shapes, like {"x": [1, 3, 224, 224]}')
