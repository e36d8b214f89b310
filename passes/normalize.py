"""The passes that bring the graphs of all exporters into one form, in order."""

from __future__ import annotations

from onnxprune.model import Model
from onnxprune.passes.base import Pass
from onnxprune.passes.constants_to_initializers import ConstantsToInitializers
from onnxprune.passes.drop_initializer_inputs import DropInitializerInputs
from onnxprune.passes.drop_stale_value_info import DropStaleValueInfo
from onnxprune.passes.eliminate_identity import EliminateIdentity
from onnxprune.passes.fold_constants import FoldConstants
from onnxprune.passes.fold_shapes import FoldShapes
from onnxprune.passes.inline_functions import InlineFunctions
from onnxprune.passes.remove_unused import RemoveUnused
from onnxprune.passes.unshare_vectors import UnshareVectors

NORMALIZATION: tuple[Pass, ...] = (
    InlineFunctions(),
    DropStaleValueInfo(),
    DropInitializerInputs(),
    ConstantsToInitializers(),
    EliminateIdentity(),
    FoldConstants(),
    FoldShapes(),
    RemoveUnused(),
    UnshareVectors(),
)

_MOST_ROUNDS = 5


def normalize(model: Model) -> Model:
    """Bring a model into the form that the analysis works on; returns the model itself if it is so already.

    Deterministic and idempotent: ``normalize(normalize(m)) is normalize(m)``.
    """
    return model.derived(_normalize)


def _normalize(model: Model) -> Model:
    # One pass can make work for an earlier one (a vector that is no longer shared can be folded away).
    for _ in range(_MOST_ROUNDS):
        before = model
        for step in NORMALIZATION:
            model = step(model).model
        if model is before:
            break
    return model
