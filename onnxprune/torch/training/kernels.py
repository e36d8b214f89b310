"""The same steps by faster kernels of the processor.

Two things cost time in PyTorch's CPU kernels that no arithmetic asks for:

- *Pooling over whole maps* gives its gradient back in rows of positions, while everything before it lies channels
  last. Kernels take such a mixture value by value: the gradient of a BatchNormalization of 128x256x4x4 in front of a
  pooling takes 7.4 milliseconds so, and .6 when the two agree.
- *Convolutions of 1x1* without strides are products of matrices, and where maps and channels are small, those are
  faster than oneDNN's convolutions: 128x16x7x7 to 32 channels there and back takes .29 milliseconds and not .66;
  128x64x14x14 to 128 channels takes the same.

Results are the same up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from onnxprune.torch.training.precision import leave_strided

_POOLS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d)


def channels_last(x: Tensor) -> Tensor:
    """Images [B, C, H, W] with their channels side by side, in which convolutions are faster; others as they are."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def quicken(module: fx.GraphModule, autocast: torch.dtype | None = None) -> Callable[[], None]:
    """Let a module that computes on the processor, channels last, learn by faster kernels; gives what undoes that.

    ``autocast`` is the type that it computes products in, None for its own: in 16 bits oneDNN multiplies either way,
    but some convolutions had best stay in floats.
    """
    if autocast is None:
        swapped = [part for part in module.modules() if type(part) is nn.Conv2d and _is_pointwise(part)]
        for part in swapped:
            part.__class__ = _Pointwise
    else:
        swapped = leave_strided(module)
    hooks = [
        module.get_submodule(str(node.target)).register_forward_hook(_returning)
        for node in module.graph.nodes
        if node.op == "call_module" and any(_may_rearrange(module, user) for user in node.users)
    ]

    def undo() -> None:
        for part in swapped:
            part.__class__ = nn.Conv2d
        for hook in hooks:
            hook.remove()

    return undo


def _may_rearrange(module: fx.GraphModule, user: fx.Node) -> bool:
    """Whether the gradient of what a node uses may come back in another layout."""
    return user.op != "call_module" or isinstance(module.get_submodule(str(user.target)), _POOLS)


def _returning(module: nn.Module, inputs: Any, result: Any) -> None:
    """Bring the gradient of a result into the result's own layout."""
    if isinstance(result, Tensor) and result.dim() == 4 and result.requires_grad:
        result.register_hook(channels_last)  # type: ignore[no-untyped-call]


def _is_pointwise(part: nn.Conv2d) -> bool:
    return (
        part.groups == 1
        and set(part.kernel_size) == set(part.stride) == {1}
        and part.padding in ("valid", (0, 0), "same")
    )


class _Pointwise(nn.Conv2d):
    """A convolution of 1x1, as the product of matrices that it is."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or not x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(x)
        return F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
