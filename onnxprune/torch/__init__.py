"""ONNX models as trainable PyTorch modules, and the trained weights back in the same ONNX graph.

:func:`to_module` makes the module, :func:`write_back` brings its values home. Needs PyTorch (extra ``torch``); the
rest of onnxprune does not import this package.
"""

from __future__ import annotations

from onnxprune.errors import installing

try:
    import torch as _torch  # noqa: F401 - only to say what is missing
except ImportError as error:
    raise ImportError(f"onnxprune.torch needs PyTorch; {installing('torch')}", name="torch") from error

from onnxprune.torch.base import Converter, Converters
from onnxprune.torch.builder import Builder
from onnxprune.torch.code import to_code
from onnxprune.torch.layouts import Held
from onnxprune.torch.module import OnnxModule, to_module
from onnxprune.torch.ops import default_registry
from onnxprune.torch.training import Callback, Recipe, Training, train
from onnxprune.torch.writing import write_back

__all__ = [
    "Builder",
    "Callback",
    "Converter",
    "Converters",
    "Held",
    "OnnxModule",
    "Recipe",
    "Training",
    "default_registry",
    "to_code",
    "to_module",
    "train",
    "write_back",
]
