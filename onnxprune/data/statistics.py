"""Statistics of activations per channel, gathered batch by batch in one walk through the model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.data.memory import memory_budget
from onnxprune.data.samples import Samples
from onnxprune.data.staging import StagedRun
from onnxprune.ir.model import Model

FloatArray = NDArray[np.float64]

#: A covariance matrix of more channels is not gathered: only its diagonal is.
MOST_CHANNELS = 4096
#: Positions that a covariance is taken from, at most.
MOST_ROWS = 1 << 15
#: Bytes per entry of a covariance matrix: as it is kept, and of what is made of them at once.
_KEPT, _AT_WORK = 8, 96


@dataclass(frozen=True)
class ChannelStatistics:
    """Per channel, over samples and positions: mean, mean magnitude and variance, [C].

    ``covariance`` [C, C] is None where it was not asked for, of too many channels, or where memory does not suffice.
    """

    count: int
    mean: FloatArray
    magnitude: FloatArray
    variance: FloatArray
    covariance: FloatArray | None = None


def channel_statistics(
    model: Model,
    samples: Samples,
    tensors: Mapping[str, int],
    *,
    covariances: Collection[str] = (),
    seed: int = 0,
    memory: int | None = None,
) -> dict[str, ChannelStatistics]:
    """Run a model and describe tensors.

    Args:
        model: the model; tensors that no node of its main graph makes are left out.
        samples: what to run it on.
        tensors: the channel dimension by tensor.
        covariances: tensors whose covariances are wanted, too. They are taken from at most ``MOST_ROWS`` positions.
        seed: of the choice of these positions.
        memory: bytes that covariances may take, and what is made of one; half of what is free, if not given. Those of
            further tensors are left out.

    Raises:
        VerificationError: onnxruntime does not run the model.
        DataError: an activation is not finite.
    """
    run = StagedRun(model, samples, "the model")
    found: dict[str, ChannelStatistics] = {}
    left = memory_budget(memory)

    def describe(name: str) -> None:
        nonlocal left
        entries = run.values(name)[0].shape[tensors[name]] ** 2
        gather = name in covariances and entries <= MOST_CHANNELS**2 and (_KEPT + _AT_WORK) * entries <= left
        left -= _KEPT * entries if gather else 0
        found[name] = _described(run.values(name), tensors[name], gather, seed)

    for name in [name for name in tensors if name in run]:
        describe(name)
    for index, node in enumerate(model.graph.node):
        for name in node.output:
            if name in tensors:
                run.advance(index + 1, (name,))
                describe(name)
                run.drop(name)
    return found


def _described(batches: Iterable[NDArray[np.generic]], dim: int, gather: bool, seed: int) -> ChannelStatistics:
    arrays = [np.moveaxis(np.asarray(batch), dim, -1) for batch in batches]
    channels = arrays[0].shape[-1]
    count = sum(array.size // max(channels, 1) for array in arrays)
    share, rng = min(1.0, MOST_ROWS / max(count, 1)), np.random.default_rng(seed)
    total, absolute, square = np.zeros(channels), np.zeros(channels), np.zeros(channels)
    products = np.zeros((channels, channels)) if gather else None
    picked, picked_sum, shift = 0, np.zeros(channels), None
    for array in arrays:
        rows = array.reshape(-1, channels).astype(np.float32, copy=False)
        if shift is None:
            shift = rows.mean(axis=0, dtype=np.float64)
        about = rows - shift.astype(np.float32)
        total += about.sum(axis=0, dtype=np.float64)
        square += np.einsum("nc,nc->c", about, about, dtype=np.float64)
        absolute += np.abs(rows).sum(axis=0, dtype=np.float64)
        if products is not None:
            some = about if share == 1 else about[rng.random(len(about)) < share]
            products += some.T @ some
            picked += len(some)
            picked_sum += some.sum(axis=0, dtype=np.float64)
    assert shift is not None
    mean = total / count
    variance = np.maximum(square / count - np.square(mean), 0.0)
    found = None
    if products is not None:
        centre = picked_sum / max(picked, 1)
        found = products / max(picked, 1) - np.outer(centre, centre)
    return ChannelStatistics(count, mean + shift, absolute / count, variance, found)
