"""How much the outputs of a model suffer from an error in one of its tensors: measured, tensor by tensor.

The error that a tensor gets is a part of what it is on another sample, less the mean: it has the channels' spreads, and
their correlations, and lies as smoothly over positions as what layers compute does. (White noise would be averaged away
by whatever pools, and make early layers look harmless.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.data.fidelity import compare_outputs, outputs_of
from onnxprune.data.samples import Samples
from onnxprune.data.staging import StagedRun
from onnxprune.ir.model import Model

#: Samples that are run, at most: influences differ by factors of ten and more, and a few samples tell them.
MOST_SAMPLES = 32
#: The squared error that is put in, over the variance.
_ERROR = 0.1


@dataclass(frozen=True)
class Influences:
    """What :func:`influences` gives for these samples and tensors: a key that a model can remember it by."""

    digest: str
    tensors: tuple[tuple[str, int], ...]
    samples: Samples = field(compare=False)

    def __call__(self, model: Model) -> dict[str, float]:
        return influences(model, self.samples, dict(self.tensors))


def influences(model: Model, samples: Samples, tensors: Mapping[str, int]) -> dict[str, float]:
    """The damage to the outputs per relative squared error in each of these tensors.

    Damage is the mean KL divergence of class probabilities (nats), or for other outputs the squared error over the
    variance; of several outputs the largest. Tensors that no node of the main graph makes are left out.

    Args:
        model: the model.
        samples: what to run it on; at most ``MOST_SAMPLES`` of them. With a single one nothing is known: {}.
        tensors: the channel dimension by tensor.

    Raises:
        VerificationError: onnxruntime does not run the model.
        DataError: an activation is not finite.
    """
    few = samples.first(MOST_SAMPLES)
    if len(few) < 2:
        return {}
    wanted = outputs_of(model, few, "the model")
    run = StagedRun(model, few, "the model")
    found: dict[str, float] = {}
    for index, node in enumerate(model.graph.node):
        for name in node.output:
            if name not in tensors:
                continue
            run.advance(index + 1, (name,))
            got = run.rest(name, list(_disturbed(run.values(name), tensors[name])))
            run.drop(name)
            compared = [compare_outputs(output, wanted[output], got[output]) for output in got if output in wanted]
            damage = max((o.error if o.kl is None else o.kl for o in compared), default=0.0)
            if np.isfinite(damage):
                found[name] = damage / _ERROR
    return found


def _disturbed(values: Sequence[NDArray[Any]], dim: int) -> Iterator[NDArray[Any]]:
    """Every batch with an error of the wanted size: what the batch before is, less the mean of each channel."""
    others = tuple(d for d in range(values[0].ndim) if d != dim)
    count = sum(value.size // value.shape[dim] for value in values)
    mean = sum(value.sum(axis=others, dtype=np.float64, keepdims=True) for value in values) / count
    for place, value in enumerate(values):
        before = values[place - 1]
        other = before if before.shape == value.shape and len(values) > 1 else np.roll(value, 1, axis=0)
        yield (value + np.sqrt(_ERROR) * (other - mean)).astype(value.dtype)
