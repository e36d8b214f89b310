"""The passes that bring the graphs of all exporters into one form, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxprune.ir.collection import uncollected
from onnxprune.ir.control_flow import close_bodies, open_bodies
from onnxprune.ir.model import Model, ModelLike, as_model
from onnxprune.passes.base import Pass, PassResult
from onnxprune.passes.constants_to_initializers import ConstantsToInitializers
from onnxprune.passes.drop_initializer_inputs import DropInitializerInputs
from onnxprune.passes.drop_stale_value_info import DropStaleValueInfo
from onnxprune.passes.eliminate_identity import EliminateIdentity
from onnxprune.passes.fold_constants import FoldConstants
from onnxprune.passes.fold_shapes import FoldShapes
from onnxprune.passes.inline_functions import InlineFunctions
from onnxprune.passes.manager import PassManager
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


class _InsideBodies(PassManager):
    """Run passes with the nodes of bodies in the main graph."""

    def run(self, model: ModelLike) -> PassResult:
        """Open the bodies, run all passes, and close the bodies again."""
        model = as_model(model)
        opened = open_bodies(model)
        result = super().run(opened)
        return result if opened is model else _changed(model, close_bodies(result.model))


@dataclass(frozen=True)
class Normalization(PassManager):
    """Bring a model into the form that the analysis works on."""

    name = "normalize"

    steps: Sequence[Pass] = (
        # Functions may hold control flow, so they come first.
        InlineFunctions(),
        # What decides over control flow may be constant only after the other passes.
        PassManager((_InsideBodies(NORMALIZATION, rounds=_MOST_ROUNDS), ResolveControlFlow()), rounds=_MOST_ROUNDS),
    )

    @uncollected()
    def run(self, model: ModelLike) -> PassResult:
        """Run all passes; what comes out as it went in is the model itself."""
        model = as_model(model)
        return _changed(model, super().run(model).model)


NORMALIZER = Normalization()


def normalize(model: ModelLike) -> Model:
    """The model in the form that the analysis works on; the same function of the inputs, shapes and names kept.

    Deterministic and idempotent: ``normalize(normalize(m)) is normalize(m)``, and a Model that is so already is
    returned itself. Tensor names in plans refer to this form.
    """
    return as_model(model).derived(_normalize)


def _normalize(model: Model) -> Model:
    return NORMALIZER(model).model


def _changed(model: Model, current: Model) -> PassResult:
    """A result that knows whether two models share their weights and are equal in all else."""
    same = current is model or (
        model.weights.keys() == current.weights.keys()
        and all(current.weights[name] is weight for name, weight in model.weights.items())
        and model.skeleton == current.skeleton
    )
    return PassResult(model if same else current, modified=not same)
