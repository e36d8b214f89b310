"""From the model as it is to the module that is trained, and from the trained module to the model that is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from onnxprune.analysis import ModelLike, as_model, normalize
from onnxprune.heads import Head, head_of, without_softmax
from onnxprune.model import Model
from onnxprune.passes.fold_batchnorm import FoldBatchnorm
from onnxprune.passes.reinitialize import Reinitialize
from onnxprune.passes.restore_batchnorm import RestoreBatchnorm
from onnxprune.torch.module import OnnxModule, to_module
from onnxprune.torch.training.recipe import Recipe
from onnxprune.torch.writing import write_back

Inputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Prepared:
    """A model on its way through training.

    Attributes:
        model: with the weights that training begins with.
        module: what is trained; it gives logits where the model gives probabilities.
        head: the output that it is trained on.
        restored: the outputs of the BatchNormalizations that were put in, to be folded again.
    """

    model: Model
    module: OnnxModule
    head: Head
    restored: frozenset[str]

    def finished(self) -> Model:
        """The model with the module's present values."""
        trained = write_back(self.module, self.model)
        return FoldBatchnorm(self.restored)(trained).model if self.restored else trained


def prepare(model: ModelLike, recipe: Recipe, calibration: Inputs | None) -> Prepared:
    """Fresh weights and BatchNormalization as the recipe wants them, and the module.

    Args:
        model: a Model, ModelProto or path.
        recipe: how to train.
        calibration: a batch on which statistics are measured where BatchNormalization is restored to go on training.

    Raises:
        ConversionError: operators without a converter.
        ModelError: the model cannot be read.
        TrainingError: it is open which output is trained on.
    """
    start = as_model(model)
    restored: frozenset[str] = frozenset()
    scratch = recipe.start == "from-scratch"
    if scratch or recipe.restore_batchnorm:
        start = normalize(start)
    if recipe.restore_batchnorm:
        before = _normalised(start)
        start = RestoreBatchnorm(None if scratch else calibration)(start).model
        restored = _normalised(start) - before
    if scratch:
        start = Reinitialize(recipe.seed)(start).model
    head = head_of(start, recipe.output)
    return Prepared(start, logits_module(start, head), head, restored)


def logits_module(model: Model, head: Head) -> OnnxModule:
    """The module of a model without its last Softmax."""
    return to_module(without_softmax(normalize(model), head))


def _normalised(model: Model) -> frozenset[str]:
    return frozenset(node.output[0] for node in model.graph.node if node.op_type == "BatchNormalization")
