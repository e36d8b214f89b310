"""Products of two activations, such as queries with keys: what each operand meets in the other one.

Where positions of the contracted axis go, they go from both operands. What the product was is kept best if an operand
takes up what the other one's kept positions tell of the rest: ``A·Bᵀ ≈ (A·T)·B'ᵀ`` with ``T = E[BᵀB'] E[B'ᵀB']⁻¹``,
for each position of the leading axes (each head) by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.data.samples import Samples
from onnxprune.data.staging import StagedRun
from onnxprune.ir.graph import Graph, Node, UnknownShapeError
from onnxprune.ir.model import Model
from onnxprune.ops import Registry, default_registry
from onnxprune.ops.elementwise import Broadcasting, Unary

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """One operand of such a product, the other one, and of both the axis that is contracted and the one that is left.

    ``centred`` tells that what is added to all that a row of ``tensor`` gives changes nothing, as a softmax follows:
    the mean of ``other`` over its ``other_free`` does not count.
    """

    node: int
    output: str
    tensor: str
    dim: int
    free: int
    other: str
    other_dim: int
    other_free: int
    centred: bool

    def own(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values of ``tensor`` as [N, H, R, D]: sample, head, row, contracted position."""
        return _rows(values, self.dim, self.free)

    def partner(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values of ``other`` as [N, H, R, D], without what does not count."""
        rows = _rows(values, self.other_dim, self.other_free)
        return rows - rows.mean(axis=2, keepdims=True) if self.centred else rows


def pairs(graph: Graph, registry: Registry | None = None) -> Iterator[Pair]:
    """Both operands of every product of activations, in graph order."""
    known = registry or default_registry()
    for node in graph.nodes:
        operator = known.find(node)
        try:
            paired = None if operator is None else operator.paired(node)
            compared = None if paired is None else _compared(graph, known, node.outputs[0])
        except UnknownShapeError:
            continue
        if paired is None or node.inputs[0] == node.inputs[1]:
            continue
        for own, other in ((0, 1), (1, 0)):
            yield Pair(
                node.index,
                node.outputs[0],
                node.inputs[own],
                paired.contracted[own],
                paired.free[own],
                node.inputs[other],
                paired.contracted[other],
                paired.free[other],
                compared == paired.free[other],
            )


def grams(left: Sequence[NDArray[Any]], right: Sequence[NDArray[Any]]) -> FloatArray:
    """The sum of products [H, D, E] of rows [N, H, R, D] and [N, H, R, E], batch by batch."""
    products = [np.matmul(a.swapaxes(2, 3), b).sum(axis=0, dtype=np.float64) for a, b in zip(left, right, strict=True)]
    found: FloatArray = np.sum(products, axis=0, dtype=np.float64)
    return found


@dataclass(frozen=True)
class Meeting:
    """Of one operand the covariance of its contracted positions, of the other one the mean products, both [H, D, D].

    ``rows`` is how many rows the covariance is of.
    """

    rows: int
    covariance: FloatArray
    products: FloatArray


def meetings(model: Model, samples: Samples, wanted: Collection[Pair]) -> dict[Pair, Meeting]:
    """What operands are like on samples.

    Raises:
        VerificationError: onnxruntime does not run the model.
        DataError: an activation is not finite.
    """
    run = StagedRun(model, samples, "the model")
    makers = {name: index for index, node in enumerate(model.graph.node) for name in node.output}
    found: dict[Pair, Meeting] = {}
    for pair in sorted(wanted, key=lambda pair: makers.get(pair.output, -1)):
        if pair.output not in makers:
            continue
        run.advance(makers[pair.output], (pair.tensor, pair.other))
        own = [pair.own(values) for values in run.values(pair.tensor)]
        other = [pair.partner(values) for values in run.values(pair.other)]
        run.drop(pair.tensor, pair.other)
        rows, others = (sum(len(x) * x.shape[2] for x in part) for part in (own, other))
        mean = sum(x.sum(axis=(0, 2), dtype=np.float64) for x in own) / rows
        covariance = grams(own, own) / rows - mean[:, :, None] * mean[:, None, :]
        found[pair] = Meeting(rows, covariance, grams(other, other) / others)
    return found


def _rows(values: NDArray[Any], dim: int, free: int) -> NDArray[Any]:
    moved = np.moveaxis(values, (free, dim), (-2, -1))
    return moved.reshape(len(moved), -1, *moved.shape[-2:])


def _compared(graph: Graph, registry: Registry, tensor: str) -> int | None:
    """The axis over which a tensor's positions are compared, after what treats each of them by itself; or None."""
    shape = graph.shapes.extents.get(tensor)
    while len(graph.consumers.get(tensor, ())) == 1:
        reader: Node = graph.nodes[graph.consumers[tensor][0]]
        operator = registry.find(reader)
        axis = None if operator is None else operator.compares(reader)
        if axis is not None:
            return axis
        if not isinstance(operator, (Unary, Broadcasting)) or graph.shapes.extents.get(reader.outputs[0]) != shape:
            return None
        tensor = reader.outputs[0]
    return None
