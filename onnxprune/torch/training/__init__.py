"""Training ONNX models in PyTorch: :func:`train` with a :class:`Recipe`."""

from onnxprune.torch.training.history import Callback, Epoch, Step
from onnxprune.torch.training.loop import Training, train
from onnxprune.torch.training.recipe import Recipe

__all__ = ["Callback", "Epoch", "Recipe", "Step", "Training", "train"]
