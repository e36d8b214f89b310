"""The passes that bring the graphs of all exporters into one form, in order."""

from __future__ import annotations

from onnxprune.ir.collection import uncollected
from onnxprune.ir.control_flow import close_bodies, open_bodies
from onnxprune.ir.model import Model, ModelLike, as_model
from onnxprune.passes.base import Pass
from onnxprune.passes.constants_to_initializers import ConstantsToInitializers
from onnxprune.passes.drop_initializer_inputs import DropInitializerInputs
from onnxprune.passes.drop_stale_value_info import DropStaleValueInfo
from onnxprune.passes.eliminate_identity import EliminateIdentity
from onnxprune.passes.fold_constants import FoldConstants
from onnxprune.passes.fold_shapes import FoldShapes
from onnxprune.passes.inline_functions import InlineFunctions
from onnxprune.passes.remove_unused import RemoveUnused
from onnxprune.passes.resolve_control_flow import ResolveControlFlow
from onnxprune.passes.resolve_sequences import ResolveSequences
from onnxprune.passes.unshare_vectors import UnshareVectors

NORMALIZATION: tuple[Pass, ...] = (
    InlineFunctions(),
    DropStaleValueInfo(),
    DropInitializerInputs(),
    ConstantsToInitializers(),
    EliminateIdentity(),
    ResolveSequences(),
    FoldConstants(),
    FoldShapes(),
    RemoveUnused(),
    UnshareVectors(),
)

_MOST_ROUNDS = 5


@uncollected()
def normalize(model: ModelLike) -> Model:
    """The model in the form that the analysis works on; the same function of the inputs, shapes and names kept.

    Deterministic and idempotent: ``normalize(normalize(m)) is normalize(m)``, and a Model that is so already is
    returned itself. Tensor names in plans refer to this form.
    """
    return as_model(model).derived(_normalize)


def _normalize(model: Model) -> Model:
    # Functions may hold control flow, so they come first.
    current = InlineFunctions()(model).model
    for _ in range(_MOST_ROUNDS):
        closed = _normalized_bodies(current)
        # What decides over control flow may be constant by now.
        current = ResolveControlFlow()(closed).model
        if current is closed:
            break
    return model if _same(current, model) else current


def _normalized_bodies(model: Model) -> Model:
    """One run of all passes, with the nodes of bodies in the main graph."""
    opened = open_bodies(model)
    # One pass can make work for an earlier one (a vector that is no longer shared can be folded away).
    for _ in range(_MOST_ROUNDS):
        before = opened
        for step in NORMALIZATION:
            opened = step(opened).model
        if opened is before:
            break
    return close_bodies(opened)


def _same(a: Model, b: Model) -> bool:
    """Whether two models share their weights and are equal in all else."""
    if a is b:
        return True
    shared = a.weights.keys() == b.weights.keys() and all(b.weights[name] is w for name, w in a.weights.items())
    return shared and a.skeleton == b.skeleton
