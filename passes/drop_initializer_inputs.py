"""Treat initialisers that are listed as graph inputs as weights."""

from __future__ import annotations

from onnxprune.ir.model import Model
from onnxprune.passes.base import Pass, PassResult

_FIRST_IR_WITH_CONSTANT_INITIALIZERS = 4


class DropInitializerInputs(Pass):
    """Stop listing initialisers as graph inputs, so that they are weights and not defaults.

    Up to IR version 3 every initialiser has to be listed, and is a weight nonetheless: those models stay
    as they are.
    """

    name = "drop_initializer_inputs"

    def run(self, model: Model) -> PassResult:
        """Remove the inputs that bear the name of a weight."""
        if model.skeleton.ir_version < _FIRST_IR_WITH_CONSTANT_INITIALIZERS:
            return PassResult(model, modified=False)
        listed = [index for index, value in enumerate(model.graph.input) if value.name in model.weights]
        if not listed:
            return PassResult(model, modified=False)
        draft = model.edit()
        for index in reversed(listed):
            del draft.graph.input[index]
        return PassResult(draft.finish(), modified=True)
