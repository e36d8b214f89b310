"""Gemm and MatMul, with a weight or between two activations."""

from __future__ import annotations

from onnxprune.ir.graph import Node
from onnxprune.ops.base import Contraction, Masker, Operator, broadcast_axes
from onnxprune.ops.linear import LinearLayer, MatrixLayer, Paired, common
from onnxprune.ops.relations import Relations


class Gemm(Operator):
    """A (M, K), B (K, N), C broadcast to (M, N) → Y (M, N); A and B may come transposed."""

    types = ("Gemm",)

    def _dims(self, node: Node) -> tuple[int, int, int, int]:
        """The dimensions of A that hold M and K, and those of B that hold K and N."""
        m, k_a = (1, 0) if node.attr("transA", 0) else (0, 1)
        k_b, n = (1, 0) if node.attr("transB", 0) else (0, 1)
        return m, k_a, k_b, n

    def relate(self, node: Node, relations: Relations) -> None:
        a, b, y = node.inputs[0], node.inputs[1], node.outputs[0]
        m, k_a, k_b, n = self._dims(node)
        relations.equal(a, m, y, 0)
        relations.equal(a, k_a, b, k_b)
        relations.equal(b, n, y, 1)
        if node.has_input(2):
            broadcast_axes(relations, node, node.inputs[2], y)
        if node.is_constant(1):
            relations.producer(b, n)
        elif node.is_constant(0):
            relations.producer(a, m)

    def cost(self, node: Node) -> Contraction:
        b, y = node.inputs[1], node.outputs[0]
        return Contraction(
            kind="dense",
            factor=1,
            axes=((y, 0), (y, 1), (b, self._dims(node)[2])),
            weights=tuple(i for i in node.inputs if i and i in node.graph.constants),
            output=y,
            out_dim=0 if node.is_constant(0) and not node.is_constant(1) else 1,
        )

    def mask(self, node: Node, masker: Masker) -> None:
        masker.zero(node, 1, self._dims(node)[2])

    def linear(self, node: Node) -> LinearLayer | None:
        alpha = float(node.attr("alpha", 1.0))
        if node.attr("transA", 0) or not alpha or (node.has_input(2) and not node.attr("beta", 1.0)):
            return None
        fields = common(node, groups=1, in_dim=1, out_dim=1, bias=2)
        return MatrixLayer(**fields, transposed=bool(node.attr("transB", 0)), scale=alpha)


class MatMul(Operator):
    """A (…, M, K) times B (…, K, N) → Y (…, M, N), with numpy's broadcasting and its rules for one dimension."""

    types = ("MatMul",)

    def relate(self, node: Node, relations: Relations) -> None:
        a, b, y = node.inputs[0], node.inputs[1], node.outputs[0]
        rank_a, rank_b, rank_y = len(node.in_shape(0)), len(node.in_shape(1)), len(node.out_shape())
        relations.equal(a, rank_a - 1, b, max(rank_b - 2, 0))
        if rank_b > 1:
            relations.equal(b, rank_b - 1, y, rank_y - 1)
        columns = 1 if rank_b > 1 else 0
        if rank_a > 1:
            relations.equal(a, rank_a - 2, y, rank_y - 1 - columns)
        rows = 1 if rank_a > 1 else 0
        for tensor, rank in ((a, rank_a), (b, rank_b)):
            for dim in range(rank - 2):
                relations.equal(tensor, dim, y, dim + (rank_y - columns - rows) - (rank - 2))
        if node.is_constant(1) and rank_b > 1:
            relations.producer(b, rank_b - 1)
        elif node.is_constant(0) and rank_a > 1:
            relations.producer(a, rank_a - 2)

    def cost(self, node: Node) -> Contraction:
        a, y = node.inputs[0], node.outputs[0]
        rank = len(node.out_shape())
        weights = tuple(i for i in node.inputs if i in node.graph.constants)
        # With the weight in front, its rows are the filters.
        from_rows = node.is_constant(0) and not node.is_constant(1) and len(node.in_shape(1)) > 1
        return Contraction(
            kind="dense" if weights else "activations",
            factor=1,
            axes=(*((y, dim) for dim in range(rank)), (a, len(node.in_shape(0)) - 1)),
            weights=weights,
            output=y,
            out_dim=max(rank - (2 if from_rows else 1), 0),
        )

    def mask(self, node: Node, masker: Masker) -> None:
        if node.is_constant(0) and not node.is_constant(1):
            masker.zero(node, 0, len(node.in_shape(0)) - 1)
        else:
            masker.zero(node, 1, max(len(node.in_shape(1)) - 2, 0))

    def linear(self, node: Node) -> LinearLayer | None:
        last = len(node.in_shape(0)) - 1
        if len(node.in_shape(1)) != 2 or last < 1:
            return None
        return MatrixLayer(**common(node, groups=1, in_dim=last, out_dim=last, bias=-1), transposed=False, scale=1.0)

    def paired(self, node: Node) -> Paired | None:
        a, b = node.in_shape(0), node.in_shape(1)
        if len(a) < 3 or a[:-2] != b[:-2] or node.is_constant(0) or node.is_constant(1):
            return None
        return Paired(contracted=(len(a) - 1, len(a) - 2), free=(len(a) - 2, len(a) - 1))


OPERATORS: tuple[Operator, ...] = (Gemm(), MatMul())
