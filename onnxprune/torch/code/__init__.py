"""A model as PyTorch code that people read: see :func:`to_code`."""

from onnxprune.torch.code.writing import to_code

__all__ = ["to_code"]
