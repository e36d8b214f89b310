"""Several processes that train one model: what torchrun starts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from onnxprune.errors import TrainingError, UsageError
from onnxprune.torch.training.joint_batchnorm import join_batchnorm


@dataclass(frozen=True)
class Processes:
    """This process's number (``rank``) among ``count``, and the device it works on."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def sum(self, values: list[float]) -> list[float]:
        """Each value, added over all processes."""
        if self.count == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return [float(v) for v in tensor]

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            dist.barrier()

    def share(self, joint: int) -> int:
        """This process's part of a joint batch. Raises TrainingError where it does not divide."""
        if joint % self.count:
            raise TrainingError(f"a batch of {joint} does not divide among {self.count} processes; choose a multiple")
        return joint // self.count

    def wrapped(self, module: nn.Module, outputs: int) -> nn.Module:
        """The module (of so many outputs) whose gradients are averaged over all processes, and BatchNorm joined."""
        if self.count == 1:
            return module
        join_batchnorm(module)
        ids = [self.device.index] if self.device.type == "cuda" else None
        # A model with several outputs is trained on one, which need not depend on all weights.
        return nn.parallel.DistributedDataParallel(module, device_ids=ids, find_unused_parameters=outputs > 1)


@contextlib.contextmanager
def processes(device: str = "auto") -> Iterator[Processes]:
    """Join the processes that torchrun started (or that the caller has initialised); alone without it.

    Args:
        device: ``auto`` (a GPU if there is one), or what PyTorch calls it.

    Raises:
        TrainingError: there is no such device.
    """
    wanted = _device(device)
    if dist.is_available() and dist.is_initialized():
        yield Processes(dist.get_rank(), dist.get_world_size(), wanted)
        return
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "RANK" not in os.environ:
        yield Processes(0, 1, wanted)
        return
    dist.init_process_group("nccl" if wanted.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), wanted)
    finally:
        dist.destroy_process_group()


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device '{name}' cannot be used: {str(error).splitlines()[0]}") from error
    return device
