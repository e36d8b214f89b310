"""From the model as it is to the module that is trained, and from the trained module to the model that is kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from onnxprune.data.logits import ENDINGS, Head, head_of, without_ending
from onnxprune.errors import TrainingError
from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Model, ModelLike, as_model
from onnxprune.ops.layers import affine
from onnxprune.passes.fold_batchnorm import FoldBatchnorm
from onnxprune.passes.normalize import normalize
from onnxprune.passes.reinitialize import Reinitialize
from onnxprune.passes.restore_batchnorm import RestoreBatchnorm
from onnxprune.torch.module import OnnxModule, to_module
from onnxprune.torch.surrogates import Surrogate, install
from onnxprune.torch.training.batching import any_batch, sized
from onnxprune.torch.training.losses import is_classification
from onnxprune.torch.training.recipe import Recipe
from onnxprune.torch.writing import write_back

if TYPE_CHECKING:
    from onnxprune.data import Batch


@dataclass(frozen=True)
class Prepared:
    """A model on its way through training.

    Attributes:
        model: with the weights that training begins with.
        module: what is trained; it gives logits where the model gives probabilities.
        head: the output that it is trained on.
        cut: the operators that the module lacks at that output.
        restored: the outputs of the BatchNormalizations that were put in, to be folded again.
        surrogate: the gradient that thresholds have in the module, or lack; None where there is no need.
    """

    model: Model
    module: OnnxModule
    head: Head
    cut: tuple[str, ...]
    restored: frozenset[str]
    surrogate: Surrogate | None = None

    def finished(self) -> Model:
        """The model with the module's present values."""
        trained = write_back(self.module, self.model)
        return FoldBatchnorm(self.restored)(trained).model if self.restored else trained


def prepare(model: ModelLike, recipe: Recipe, first: Batch) -> Prepared:
    """Fresh weights and BatchNormalization as the recipe wants them, and the module.

    Args:
        model: a Model, ModelProto or path.
        recipe: how to train.
        first: some samples, on which statistics are measured where BatchNormalization is restored to go on training.

    Raises:
        ConversionError: operators without a converter.
        ModelError: the model cannot be read.
        TrainingError: it is open which output is trained on.
    """
    start, restored = begun(model, recipe, first)
    head = head_of(start, recipe.output)
    # Values are compared with what the file gives, class numbers with logits.
    cut = ENDINGS if is_classification(recipe, first.targets) else ()
    module = logits_module(start, head, cut)
    return Prepared(start, module, head, cut, restored, with_surrogate(module, first.inputs, head, recipe))


def with_surrogate(
    module: OnnxModule, inputs: Mapping[str, NDArray[Any]], head: Head, recipe: Recipe
) -> Surrogate | None:
    """Give thresholds a gradient where weights reach the output through them alone; None where there is no need.

    Raises:
        TrainingError: a surrogate was asked for by name, and cannot be put in.
    """
    if all(name in inputs for name in module.onnx_inputs):
        few = [torch.from_numpy(np.array(inputs[name])) for name in module.onnx_inputs]
        try:
            return install(module, few, head.position, recipe.surrogate, recipe.slope)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            if recipe.surrogate not in ("auto", "none"):
                raise TrainingError(
                    f"surrogate '{recipe.surrogate}' cannot be put in: {error}; see that the samples fit the model"
                ) from error
            # Samples that do not fit: training says so.
    return None


def begun(model: ModelLike, recipe: Recipe, first: Batch) -> tuple[Model, frozenset[str]]:
    """The model that training begins with, and the outputs of the BatchNormalizations that were put in.

    Args and errors are those of :func:`prepare`.
    """
    from onnxprune.data import inputs_of

    start = as_model(model)
    restored: frozenset[str] = frozenset()
    scratch = recipe.start == "from-scratch"
    if scratch or recipe.restore_batchnorm:
        start = normalize(start)
    if recipe.restore_batchnorm:
        before = _normalised(start)
        size = next((spec.batch for spec in inputs_of(start) if spec.batch is not None), None)
        start = RestoreBatchnorm(None if scratch else sized(first.inputs, size))(start).model
        restored = _normalised(start) - before
    if scratch:
        start = Reinitialize(recipe.seed)(start).model
    return start, restored


def logits_module(
    model: Model, head: Head, cut: Collection[str], *, among: Collection[str] | None = None
) -> OnnxModule:
    """The module of a model without its last Softmax (or what else is to be cut), for batches of any size.

    ``among`` are the inputs that hold samples, if not all do.
    """
    return to_module(any_batch(without_ending(normalize(model), head, cut), among))


def _normalised(model: Model) -> frozenset[str]:
    return frozenset(node.outputs[0] for node in model.derived(Graph).nodes if affine(node) is not None)
