"""Operators of onnxruntime (domain com.microsoft) in float: what its optimiser writes."""

from __future__ import annotations

from typing import ClassVar

from onnxprune.ir.graph import Node
from onnxprune.ops.attention import Heads, RotaryEmbedding, attention_cost, keep_scale, relate_attention
from onnxprune.ops.base import Contraction, Masker, Operator, Rewriter, broadcast_axes, positions, same_axes
from onnxprune.ops.convolution import Conv
from onnxprune.ops.generators import Held, pin_axes
from onnxprune.ops.matmul import Gemm
from onnxprune.ops.normalization import TrailingNormalization, fill_up, lost, mend_mean_square
from onnxprune.ops.relations import Relations

DOMAIN = "com.microsoft"
_SKIP_EPSILON = 1e-12


class FusedConv(Conv):
    """Conv with an activation; a fourth operand Z is added to the result first."""

    types = ("FusedConv",)
    domain = DOMAIN

    def relate(self, node: Node, relations: Relations) -> None:
        super().relate(node, relations)
        if node.has_input(3):
            same_axes(relations, node, node.inputs[3], node.outputs[0])

    def cost(self, node: Node) -> Contraction:
        plain = super().cost(node)
        weights = tuple(node.inputs[i] for i in (1, 2) if node.has_input(i))
        return Contraction(plain.kind, plain.factor, plain.axes, weights, plain.output, plain.out_dim)

    def linear(self, node: Node) -> None:
        """None: the activation lies between the product and what the node gives."""


class FusedGemm(Gemm):
    """Gemm with an activation."""

    types = ("FusedGemm",)
    domain = DOMAIN

    def linear(self, node: Node) -> None:
        """None: the activation lies between the product and what the node gives."""


class FusedMatMul(Operator):
    """MatMul times a factor; the last two dimensions of either operand may be swapped (transA, transB), and the
    last but one may come first, before those of the batch (transBatchA, transBatchB).
    """

    types = ("FusedMatMul", "TransposeMatMul")
    domain = DOMAIN

    def _dims(self, node: Node, index: int) -> tuple[int, int, range]:
        """The dimensions of an operand that are rows and columns of its matrices, and those of the batch."""
        side, rank = "AB"[index], len(node.in_shape(index))
        if rank < 2:
            raise ValueError("FusedMatMul of a vector")
        moved = bool(node.attr(f"transBatch{side}", 0))
        row, column = (0 if moved else rank - 2), rank - 1
        if node.attr(f"trans{side}", 0):
            row, column = column, row
        return row, column, range(1, rank - 1) if moved else range(rank - 2)

    def relate(self, node: Node, relations: Relations) -> None:
        a, b, y, rank = node.inputs[0], node.inputs[1], node.outputs[0], len(node.out_shape())
        m, k_a, batch_a = self._dims(node, 0)
        k_b, n, batch_b = self._dims(node, 1)
        relations.equal(a, k_a, b, k_b)
        relations.equal(a, m, y, rank - 2)
        relations.equal(b, n, y, rank - 1)
        for tensor, batch in ((a, batch_a), (b, batch_b)):
            for place, dim in enumerate(batch):
                relations.equal(tensor, dim, y, rank - 2 - len(batch) + place)
        if node.is_constant(1):
            relations.producer(b, n)
        elif node.is_constant(0):
            relations.producer(a, m)

    def cost(self, node: Node) -> Contraction:
        y, rank = node.outputs[0], len(node.out_shape())
        weights = tuple(i for i in node.inputs if i in node.graph.constants)
        return Contraction(
            kind="dense" if weights else "activations",
            factor=1,
            axes=(*((y, dim) for dim in range(rank)), (node.inputs[0], self._dims(node, 0)[1])),
            weights=weights,
            output=y,
            out_dim=rank - 1,
        )

    def mask(self, node: Node, masker: Masker) -> None:
        if node.is_constant(0) and not node.is_constant(1):
            masker.zero(node, 0, self._dims(node, 0)[1])
        else:
            masker.zero(node, 1, self._dims(node, 1)[0])


class FusedActivation(Operator):
    """Gelu in its forms, of an operand or of its sum with a bias."""

    types = ("BiasGelu", "FastGelu", "Gelu", "QuickGelu")
    domain = DOMAIN

    def relate(self, node: Node, relations: Relations) -> None:
        for operand in dict.fromkeys(node.inputs):
            if operand:
                broadcast_axes(relations, node, operand, node.outputs[0])


class SimplifiedLayerNormalization(TrailingNormalization):
    """RMSNormalization under the name that onnxruntime gave it before opset 23."""

    types = ("SimplifiedLayerNormalization",)


class SkipNormalization(Operator):
    """input (…, C), skip, gamma (C), beta (C), bias (C) → the sum of input, skip and bias, normalised over the last
    axis; mean and deviation; the sum itself. The simplified form has no beta.
    """

    types = ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
    domain = DOMAIN

    def relate(self, node: Node, relations: Relations) -> None:
        x, y, last = node.inputs[0], node.outputs[0], len(node.in_shape(0)) - 1
        for operand in node.inputs:
            if operand:
                broadcast_axes(relations, node, operand, y)
        if node.has_output(3):
            same_axes(relations, node, x, node.outputs[3])
        for index in (1, 2):
            if node.has_output(index) and node.outputs[index] in relations.axes:
                for dim in range(last):
                    relations.equal(x, dim, node.outputs[index], dim)
        relations.approximate(x, last, f"{node.op_type} over the axis", mendable=True)

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        if not rewriter.exact_norm:
            return
        gone = lost(node, rewriter, (len(node.in_shape(0)) - 1,))
        if node.op_type == "SkipLayerNormalization":
            fill_up(node, rewriter, gone, range(len(node.inputs)), (0, 3))
        else:
            mend_mean_square(node, rewriter, gone, 2, _SKIP_EPSILON, 2)

    def mask(self, node: Node, masker: Masker) -> None:
        x, last = node.inputs[0], len(node.in_shape(0)) - 1
        if masker.removed(x, last) is None:
            return
        if masker.exact_norm:
            # All that is added up before the sum is normalised.
            for index in (0, 1, 4) if node.op_type == "SkipLayerNormalization" else (0, 1, 3):
                if node.has_input(index):
                    masker.zero(node, index, len(node.in_shape(index)) - 1)
            return
        for index in range(len(node.inputs)):
            if node.has_input(index):
                masker.keep_only(node, index, len(node.in_shape(index)) - 1)
        for index in (0, 3):
            if node.has_output(index):
                masker.restore(node, index, last, (x, last))


class MultiHeadAttention(Operator):
    """query, key, value (B, S, H · d), bias (the three widths behind each other), masks → result (B, S, H · d)."""

    types = ("MultiHeadAttention",)
    domain = DOMAIN

    def _heads(self, node: Node) -> Heads:
        count = int(node.attr("num_heads"))
        return Heads(count, count, merged=True)

    def _plain(self, node: Node) -> bool:
        """Whether query, key and value are separate, and no state comes in or goes out."""
        separate = all(node.has_input(i) and len(node.in_shape(i)) == 3 for i in range(3))
        return separate and not any(node.inputs[6:]) and not any(node.outputs[1:])

    def relate(self, node: Node, relations: Relations) -> None:
        if not self._plain(node):
            reason = "MultiHeadAttention packs its operands or hands its state on"
            pin_axes(relations, node, (*node.inputs, *node.outputs), reason)
            return
        relate_attention(relations, node, self._heads(node))
        if node.has_input(3):
            offset = 0
            for index in range(3):
                at = positions(node.in_shape(index)[2])
                relations.map(node.inputs[3], 0, node.inputs[index], 2, at + offset, at)
                offset += len(at)

    def cost(self, node: Node) -> Contraction | None:
        return attention_cost(node, self._heads(node)) if self._plain(node) else None

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        if self._plain(node):
            keep_scale(node, rewriter, self._heads(node))

    def mask(self, node: Node, masker: Masker) -> None:
        if self._plain(node) and masker.removed(node.inputs[1], 2) is not None:
            masker.zero(node, 1, 2)
            if node.has_input(3):
                # The bias is added to the key before the product. What it adds to removed values does not matter.
                masker.zero(node, 3, 0)


class MicrosoftRotaryEmbedding(RotaryEmbedding):
    """RotaryEmbedding, with the positions as second operand; merged heads (B, S, H · d) go as wholes.

    What follows them there is GroupQueryAttention, whose heads keep their width.
    """

    domain = DOMAIN
    since = 1
    tables = (2, 3)

    def relate(self, node: Node, relations: Relations) -> None:
        if len(node.in_shape(0)) == 4:
            super().relate(node, relations)
            return
        same_axes(relations, node, node.inputs[0], node.outputs[0])
        pin_axes(relations, node, (node.inputs[0], node.outputs[0]), "RotaryEmbedding numbers positions", (1,))
        tie_heads(relations, node.inputs[0], node.outputs[0], node.out_shape()[2], self._width(node))

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        super().shrink(node, rewriter)
        if len(node.in_shape(0)) == 3 and node.attr("num_heads", 0):
            rewriter.set_attribute(node, "num_heads", rewriter.extent(node.inputs[0], 2) // self._width(node))


def tie_heads(relations: Relations, source: str, target: str, extent: int, width: int) -> None:
    """Merged heads of both go as wholes: each position is tied to the first of its head."""
    relations.map(source, 2, target, 2, positions(extent), positions(extent) // width * width)


class GroupQueryAttention(Operator):
    """query (B, S, H · d), key and value (B, S, K · d), or all in query; past keys and values (B, K, P, d), lengths,
    tables → result (B, S, H · d), present keys and values (B, K, T, d).

    Heads go as wholes, for onnxruntime wants their width to be a multiple of 8. Where several heads of the query
    share one of the key, each of those keeps as many heads of the query as the others, and the state stays as it is;
    where they are pairs, both go, with their part of the state.
    """

    types = ("GroupQueryAttention",)
    domain = DOMAIN

    def _sizes(self, node: Node) -> tuple[int, int, int]:
        """Heads of the query, heads of the key, and their width."""
        heads, shared = int(node.attr("num_heads")), int(node.attr("kv_num_heads"))
        return heads, shared, node.out_shape()[2] // heads

    def relate(self, node: Node, relations: Relations) -> None:
        if any(node.inputs[12:]):
            pin_axes(relations, node, (*node.inputs, *node.outputs), "GroupQueryAttention quantises its state")
            return
        heads, shared, width = self._sizes(node)
        q, y, extent = node.inputs[0], node.outputs[0], node.out_shape()[2]
        relations.equal(q, 0, y, 0)
        relations.equal(q, 1, y, 1)
        at = positions(extent)
        relations.map(q, 2, y, 2, at, at)
        tie_heads(relations, y, y, extent, width)
        for name, dim in ((node.inputs[10:11], 1), (node.inputs[11:12], 0), (node.outputs[3:4], 1)):
            if any(name) and node.shape(name[0])[dim] == heads:
                relations.map(y, 2, name[0], dim, at, at // width)
        packed = not node.has_input(1)
        if packed:
            rest = positions(node.in_shape(0)[2])[extent:]
            relations.pin(q, 2, "GroupQueryAttention packs query, key and value into one operand", rest)
        if heads > shared:
            relations.balance(y, 2, shared)
            if not packed:
                reason = "heads of the query share those of the key and value"
                pin_axes(relations, node, node.inputs[1:3], reason, (2,))
            return
        for operand, state in ((1, 3), (2, 4)):
            if not packed:
                relations.map(y, 2, node.inputs[operand], 2, at, at)
            for tensor in (node.inputs[state : state + 1], node.outputs[operand : operand + 1]):
                if any(tensor):
                    relations.map(y, 2, tensor[0], 1, at, at // width)

    def cost(self, node: Node) -> Contraction | None:
        present = node.outputs[1] if node.has_output(1) else ""
        if present not in node.graph.shapes.extents:
            return None
        y = node.outputs[0]
        axes = ((y, 0), (y, 1), (present, 2), (y, 2))
        return Contraction("activations", 1, axes, (), y, 2, also=((1, axes),))

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        heads, shared, width = self._sizes(node)
        left = rewriter.extent(node.outputs[0], 2) // width
        rewriter.set_attribute(node, "num_heads", left)
        if heads == shared:
            rewriter.set_attribute(node, "kv_num_heads", left)


class Whole(Held):
    """Operators that hold all their axes: blocks of a network in one, with their own layout."""

    domain = DOMAIN
    reasons: ClassVar[dict[str, str]] = {
        "Attention": "packs query, key and value into one weight",
        "DecoderMaskedMultiHeadAttention": "hands its state on",
        "DynamicQuantizeLSTM": "packs its quantised weights",
        "EmbedLayerNormalization": "reads several tables at once",
        "MatMulNBits": "packs its weights into blocks",
        "QAttention": "packs query, key and value into one weight",
        "QEmbedLayerNormalization": "reads several tables at once",
    }
    types = tuple(reasons)
    computing: ClassVar[dict[str, str]] = {"DynamicQuantizeLSTM": "int8", "MatMulNBits": "fp32", "QAttention": "int8"}
    """What those with weights multiply, however these are packed."""

    def precision(self, op_type: str, stored: str) -> str | None:
        """As :attr:`computing` has it; an Attention as its weight is."""
        return stored.replace("float", "fp") if op_type == "Attention" else self.computing.get(op_type)


OPERATORS: tuple[Operator, ...] = (
    FusedConv(),
    FusedGemm(),
    FusedMatMul(),
    FusedActivation(),
    SimplifiedLayerNormalization(),
    SkipNormalization(),
    MultiHeadAttention(),
    MicrosoftRotaryEmbedding(),
    GroupQueryAttention(),
    Whole(),
)
