"""BatchNormalization over the joint batch of several processes, on any device.

PyTorch's SyncBatchNorm works on GPUs only; with statistics of its own in each process, several processes would not
train what one trains.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes, and of its gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


class JointBatchNorm(_BatchNorm):
    """BatchNorm1d, 2d or 3d whose statistics are those of all processes' samples together."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise [B, C, ...]; this process has B samples of the joint batch."""
        if not self.training or self.running_mean is None or self.running_var is None:
            return super().forward(input)
        x = input.float()
        axes = [0, *range(2, x.dim())]
        shape = [1, -1, *[1] * (x.dim() - 2)]
        count = x.new_tensor([x.numel() / x.shape[1]])
        sums = _sum(torch.cat([x.sum(axes), count]))
        total = sums[-1]
        mean = sums[:-1] / total
        centred = x - mean.view(shape)
        variance = _sum(centred.square().sum(axes)) / total
        with torch.no_grad():
            share = self.momentum if self.momentum is not None else 0.1
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
            unbiased = variance * total / (total - 1).clamp(min=1)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)
        result = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.weight is not None:
            result = result * self.weight.view(shape) + self.bias.view(shape)
        return result.to(input.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any rank will do."""


def _sum(values: Tensor) -> Tensor:
    result: Tensor = _Sum.apply(values)  # type: ignore[no-untyped-call]
    return result


def join_batchnorm(module: nn.Module) -> None:
    """Replace every BatchNorm in a module by one that shares its parameters and sees all processes' samples."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm) and not isinstance(child, JointBatchNorm):
                joint = JointBatchNorm(child.num_features, child.eps, child.momentum, affine=False)
                for key, parameter in child._parameters.items():
                    joint.register_parameter(key, parameter)
                for key, buffer in child._buffers.items():
                    joint.register_buffer(key, buffer)
                joint.train(child.training)
                setattr(parent, name, joint)
