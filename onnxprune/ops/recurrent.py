"""LSTM, GRU and RNN, in one direction or two."""

from __future__ import annotations

from onnxprune.ir.graph import Node
from onnxprune.ops.base import Contraction, Masker, Operator, Rewriter, positions
from onnxprune.ops.relations import Relations

_W, _R, _B, _LENGTHS, _INITIAL_H, _INITIAL_C, _P = range(1, 8)


class Recurrent(Operator):
    """X (T, N, I), W (D, g·H, I), R (D, g·H, H), B (D, 2·g·H), lengths (N), initial states (D, N, H), P (D, 3·H)
    → Y (T, D, N, H), last states (D, N, H); g gates, D directions. With layout 1, N comes first.

    The gates lie one behind the other. A hidden unit is the same position of every gate, of both directions (they
    share hidden_size) and of the recurrence, which reads the units it produces.
    """

    types = ("GRU", "LSTM", "RNN")
    since = 7

    def _batch_first(self, node: Node) -> bool:
        return bool(node.attr("layout", 0))

    def relate(self, node: Node, relations: Relations) -> None:
        x, w, r = node.inputs[0], node.inputs[_W], node.inputs[_R]
        relations.equal(x, 2, w, 2)
        gated = [(w, 1), (r, 1)]
        gated += [(node.inputs[i], 1) for i in (_B, _P) if node.has_input(i)]
        hidden = node.in_shape(_R)[2]
        for tensor, dim in gated:
            at = positions(node.shape(tensor)[dim])
            relations.map(tensor, dim, r, 2, at, at % hidden)
        for i in (_W, _R):
            if node.is_constant(i):
                relations.producer(node.inputs[i], 1)
        self._relate_states(node, relations)

    def _relate_states(self, node: Node, relations: Relations) -> None:
        """The hidden axis, and those of time and batch."""
        x, r = node.inputs[0], node.inputs[_R]
        batch_first = self._batch_first(node)
        batch, time = (0, 1) if batch_first else (1, 0)
        if node.has_output(0):
            relations.equal(r, 2, node.outputs[0], 3)
            relations.equal(x, time, node.outputs[0], 1 if batch_first else 0)
            relations.equal(x, batch, node.outputs[0], 0 if batch_first else 2)
        else:
            relations.free(x, time)
        states = [node.inputs[i] for i in (_INITIAL_H, _INITIAL_C) if node.has_input(i)]
        states += [output for output in node.outputs[1:] if output]
        for state in states:
            relations.equal(r, 2, state, 2)
            relations.equal(x, batch, state, batch)
        if node.has_input(_LENGTHS):
            relations.equal(x, batch, node.inputs[_LENGTHS], 0)

    def cost(self, node: Node) -> Contraction:
        x, w, r = node.inputs[0], node.inputs[_W], node.inputs[_R]
        rows = ((x, 0), (x, 1), (w, 0), (w, 1))
        place = next(i for i, output in enumerate(node.outputs) if output)
        return Contraction(
            kind="recurrent",
            # Each of the g·H rows meets I inputs and H hidden units.
            factor=1,
            axes=(*rows, (w, 2)),
            also=((1, (*rows, (r, 2))),),
            weights=tuple(node.inputs[i] for i in (_W, _R, _B, _P) if node.has_input(i)),
            output=node.outputs[place],
            out_dim=3 if place == 0 else 2,
        )

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        r = node.inputs[_R]
        if rewriter.kept(r, 2) is not None:
            rewriter.set_attribute(node, "hidden_size", rewriter.extent(r, 2))

    def mask(self, node: Node, masker: Masker) -> None:
        masker.zero(node, _W, 2)
        masker.zero(node, _R, 2)


OPERATORS: tuple[Operator, ...] = (Recurrent(),)
