"""The certificate: the outputs of the pruned model equal those of the masked original.

The masked original is built without the code that shrinks: it keeps all channels, but whatever contracts or reduces
over removed positions does not see them (weights zeroed there; normalisers across channels see kept ones only).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from onnxprune.analysis import Analysis, InputShapes, ModelLike, analyze, as_model
from onnxprune.errors import VerificationError
from onnxprune.graph import Node
from onnxprune.model import Draft, Model
from onnxprune.ops import Registry
from onnxprune.plans import Plan
from onnxprune.relations import IntArray
from onnxprune.rewrite import removed_per_class
from onnxprune.runtime import Arrays, Session, random_inputs

TOLERANCE = 1e-4
APPROXIMATE_TOLERANCE = 1e-3
_CHECKER_LIMIT = 2**31 - 1


@dataclass(frozen=True)
class OutputDifference:
    """How far one output of the pruned model is from the masked original.

    ``absolute`` is the largest absolute difference, ``relative`` the same over the largest magnitude of the output.
    """

    name: str
    absolute: float
    relative: float


@dataclass(frozen=True)
class Certificate:
    """The measured comparison of the pruned model with the masked original.

    ``tolerance`` bounds the relative difference; ``approximate`` tells that groups were pruned across which the
    model normalises (the reference then normalises over kept channels only).
    """

    outputs: tuple[OutputDifference, ...]
    tolerance: float
    samples: int
    approximate: bool

    @property
    def passed(self) -> bool:
        """Whether every output agrees within the tolerance."""
        return bool(self.outputs) and all(o.relative <= self.tolerance for o in self.outputs)

    @property
    def max_absolute(self) -> float:
        """The largest absolute difference of all outputs."""
        return max((o.absolute for o in self.outputs), default=0.0)

    @property
    def max_relative(self) -> float:
        """The largest difference relative to the largest magnitude of its output."""
        return max((o.relative for o in self.outputs), default=0.0)

    def __bool__(self) -> bool:
        return self.passed

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data for JSON."""
        return {
            **asdict(self),
            "passed": self.passed,
            "max_absolute": self.max_absolute,
            "max_relative": self.max_relative,
        }


def verify(
    model: ModelLike,
    pruned: ModelLike,
    plan: Plan,
    *,
    input_shapes: InputShapes | None = None,
    registry: Registry | None = None,
    tolerance: float | None = None,
    samples: int = 1,
    seed: int = 0,
) -> Certificate:
    """Compare a pruned model with the masked original in onnxruntime.

    Args:
        model: the original, as it was given to :func:`onnxprune.plan`.
        pruned: the result to certify.
        plan: what was removed.
        input_shapes: shapes for inputs with symbolic dimensions.
        registry: the known operators, if not the default ones.
        tolerance: largest allowed relative difference; 1e-4, or 1e-3 where approximate groups were pruned.
        samples: how many random inputs to compare.
        seed: of the random inputs.

    Returns:
        The certificate; see :attr:`Certificate.passed`.

    Raises:
        PlanError: the plan does not fit the model.
        VerificationError: the pruned model is invalid, onnxruntime does not run one of the models, or the
            normalised model does not equal the original.
    """
    original, result = as_model(model), as_model(pruned)
    analysis = analyze(original, input_shapes, registry=registry)
    per_class = removed_per_class(analysis, plan)
    check(result, "the pruned model")
    approximate = _touches_approximate(analysis, per_class)
    if tolerance is None:
        tolerance = APPROXIMATE_TOLERANCE if approximate else TOLERANCE
    runs = [random_inputs(analysis.model, analysis.shapes.binding, seed + i) for i in range(samples)]
    got = _run_all(result, "the pruned model", runs)
    expected = _run_all(masked(analysis, per_class), "the masked original", runs)
    if original is not analysis.model:
        _check_normalisation(original, analysis.model, runs[:1])
    names = [o.name for o in result.graph.output]
    worst = [_difference(name, [e[name] for e in expected], [g[name] for g in got]) for name in names]
    return Certificate(tuple(worst), tolerance, samples, approximate)


def check(model: Model, what: str) -> None:
    """Run onnx.checker on a model. Raises VerificationError where it finds fault."""
    if model.file_size >= _CHECKER_LIMIT:
        return  # The checker reads one message of at most 2 GB; onnxruntime still has to load the model.
    try:
        onnx.checker.check_model(model.to_proto())
    except onnx.checker.ValidationError as error:
        raise VerificationError(f"onnx.checker rejects {what}: {str(error).strip().splitlines()[0]}") from error


def masked(analysis: Analysis, per_class: Sequence[IntArray]) -> Model:
    """The original with all channels, blind to the removed ones."""
    masker = GraphMasker(analysis, per_class)
    return masker.run()


def _run_all(model: Model, what: str, runs: Sequence[Arrays]) -> list[Arrays]:
    session = Session(model, what)
    return [session.run(inputs) for inputs in runs]


def _check_normalisation(original: Model, normal: Model, runs: Sequence[Arrays]) -> None:
    before = _run_all(original, "the original model", runs)
    after = _run_all(normal, "the normalised model", runs)
    for name in before[0]:
        difference = _difference(name, [b[name] for b in before], [a[name] for a in after])
        if not difference.relative <= TOLERANCE:
            raise VerificationError(
                f"normalising changed output '{name}' by {difference.relative:.2e}; please report this model"
            )


def _difference(name: str, expected: Sequence[NDArray[Any]], got: Sequence[NDArray[Any]]) -> OutputDifference:
    absolute = relative = 0.0
    for wanted, found in zip(expected, got, strict=True):
        if np.shape(wanted) != np.shape(found):
            return OutputDifference(name, float("inf"), float("inf"))
        if not isinstance(wanted, np.ndarray) or wanted.dtype.kind not in "fiub":
            same = np.array_equal(np.asarray(wanted), np.asarray(found))
            difference = 0.0 if same else float("inf")
            absolute, relative = max(absolute, difference), max(relative, difference)
            continue
        a, b = wanted.astype(np.float64), found.astype(np.float64)
        finite = np.isfinite(a)
        if not np.array_equal(finite, np.isfinite(b)) or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
            return OutputDifference(name, float("inf"), float("inf"))
        a, b = a[finite], b[finite]
        if a.size:
            gap = float(np.abs(a - b).max())
            scale = float(np.abs(a).max())
            absolute = max(absolute, gap)
            relative = max(relative, gap / scale if scale else gap)
    return OutputDifference(name, absolute, relative)


def _touches_approximate(analysis: Analysis, per_class: Sequence[IntArray]) -> bool:
    return any(
        group.approximate is not None and any(len(per_class[c]) for c in group.classes.tolist())
        for group in analysis.coupling.groups
    )


class GraphMasker:
    """Builds the masked original: what operators may do to it (see ``ops.base.Masker``)."""

    def __init__(self, analysis: Analysis, per_class: Sequence[IntArray]) -> None:
        self._analysis = analysis
        self._removed = per_class
        self._draft: Draft = analysis.model.edit()
        self._before: dict[int, list[NodeProto]] = {}
        self._after: dict[int, list[NodeProto]] = {}

    def run(self) -> Model:
        """Mask every node that reads a removed position."""
        coupling, graph = self._analysis.coupling, self._analysis.graph
        touched: set[int] = set()
        for members, positions in zip(coupling.members, self._removed, strict=True):
            for axis in members if len(positions) else ():
                touched.update(graph.consumers.get(coupling.axes.tensor(axis), ()))
        for index in sorted(touched):
            operator = self._analysis.registry.find(graph.nodes[index])
            if operator is not None:
                operator.mask(graph.nodes[index], self)
        nodes = []
        for index, node in enumerate(self._draft.graph.node):
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            nodes.extend((*self._before.get(index, ()), copy, *self._after.get(index, ())))
        del self._draft.graph.node[:]
        self._draft.graph.node.extend(nodes)
        return self._draft.finish()

    def removed(self, tensor: str, dim: int) -> IntArray | None:
        """The positions that go from an axis, or None if none does."""
        owner = self._analysis.coupling.class_of.get(self._analysis.coupling.axes.id(tensor, dim))
        return None if owner is None or not len(self._removed[owner]) else self._removed[owner]

    def zero(self, node: Node, index: int, dim: int) -> None:
        """Let input ``index`` of the node read zeros at the removed positions of dimension ``dim``."""
        gone = self.removed(node.inputs[index], dim)
        if gone is None:
            return
        proto = self._draft.graph.node[node.index]
        name = proto.input[index]
        weight = self._draft.weights.get(name)
        if weight is not None:
            array = weight.array.copy()
            array[(slice(None),) * dim + (gone,)] = 0
            proto.input[index] = self._draft.add_weight(self._draft.unique_name(f"{name}_masked"), array).name
            return
        shape = self._analysis.graph.shapes.extents[node.inputs[index]]
        mask = np.ones([n if d == dim else 1 for d, n in enumerate(shape)], dtype=self._dtype(node.inputs[index]))
        mask[(slice(None),) * dim + (gone,)] = 0
        self._insert(node, index, "Mul", [name, self._constant(f"{name}_mask", mask)], {})

    def keep_only(self, node: Node, index: int, dim: int) -> None:
        """Let input ``index`` of the node see only the kept positions of dimension ``dim``."""
        tensor = node.inputs[index]
        gone = self.removed(tensor, dim)
        if gone is not None:
            kept = np.delete(np.arange(self._analysis.graph.shapes.extents[tensor][dim], dtype=np.int64), gone)
            name = self._draft.graph.node[node.index].input[index]
            self._insert(node, index, "Gather", [name, self._constant(f"{tensor}_kept", kept)], {"axis": dim})

    def restore(self, node: Node, index: int, dim: int, like: tuple[str, int]) -> None:
        """Spread output ``index`` over its full extent again; what stands at removed positions does not matter."""
        gone = self.removed(*like)
        if gone is None:
            return
        extent = self._analysis.graph.shapes.extents[like[0]][like[1]]
        place = np.zeros(extent, dtype=np.int64)
        kept = np.delete(np.arange(extent), gone)
        place[kept] = np.arange(len(kept))
        proto = self._draft.graph.node[node.index]
        inner = self._draft.unique_name(f"{proto.output[index]}_kept")
        outer = proto.output[index]
        spread = helper.make_node("Gather", [inner, self._constant(f"{outer}_spread", place)], [outer], axis=dim)
        proto.output[index] = inner
        self._after.setdefault(node.index, []).insert(0, spread)

    def _insert(
        self, node: Node, index: int, op_type: str, inputs: Sequence[str], attributes: Mapping[str, Any]
    ) -> None:
        result = self._draft.unique_name(f"{inputs[0]}_masked")
        self._before.setdefault(node.index, []).append(helper.make_node(op_type, inputs, [result], **attributes))
        self._draft.graph.node[node.index].input[index] = result

    def _constant(self, base: str, value: NDArray[Any]) -> str:
        return self._draft.add_weight(self._draft.unique_name(base), value).name

    def _dtype(self, tensor: str) -> Any:
        return helper.tensor_dtype_to_np_dtype(self._analysis.graph.shapes.elem_types.get(tensor, TensorProto.FLOAT))
