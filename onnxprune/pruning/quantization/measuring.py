"""What is lost at the outputs, and how long a run takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, log10

import numpy as np
from numpy.typing import NDArray

from onnxprune.data.fidelity import outputs_of
from onnxprune.data.samples import Samples
from onnxprune.ir.engine import Engine
from onnxprune.ir.model import Model
from onnxprune.ir.sampling import Rounds
from onnxprune.ir.timing import taking_turns

FloatArray = NDArray[np.float64]

_ROUNDS = Rounds(warmup=2, least=5, most=100, seconds=0.7)


@dataclass(frozen=True)
class Loss:
    """By output: the squared error over the variance of the float model's, and the ratio of signal and noise in dB.

    ``samples`` is on how many.
    """

    errors: Mapping[str, float]
    sqnr: Mapping[str, float]
    samples: int

    @property
    def worst(self) -> float:
        """The largest of the errors; infinite where a value is not finite."""
        return max(self.errors.values(), default=0.0)


@dataclass(frozen=True)
class Judge:
    """The float model's outputs on samples held out, with which those of quantised models are compared."""

    samples: Samples
    reference: Mapping[str, FloatArray]

    @staticmethod
    def of(model: Model, samples: Samples) -> Judge:
        """What a float model says."""
        return Judge(samples, outputs_of(model, samples, "the float model"))

    def loss(self, model: Model) -> Loss:
        """What a quantised model loses. Raises VerificationError where onnxruntime does not run it."""
        found = outputs_of(model, self.samples, "the quantised model")
        return compare_floats(self.reference, found, len(self.samples))


def compare_floats(reference: Mapping[str, FloatArray], found: Mapping[str, FloatArray], samples: int) -> Loss:
    """What outputs [N, ...] lose against those of the float model; so many samples they are of."""
    errors, ratios = {}, {}
    for name, wanted in reference.items():
        if name not in found or found[name].shape != wanted.shape:
            errors[name], ratios[name] = inf, -inf  # what is found depends on the data (a list of boxes)
            continue
        noise = float(np.square(found[name] - wanted).mean())
        # A single sample varies within itself alone.
        spread = float(np.square(wanted - (wanted.mean(axis=0) if len(wanted) > 1 else wanted.mean())).mean())
        signal = float(np.square(wanted).mean())
        errors[name] = noise / spread if spread else (0.0 if not noise else inf)
        ratios[name] = inf if not noise else 10 * log10(signal / noise) if signal else -inf
    return Loss(errors, ratios, samples)


def seconds_of(models: Sequence[Model], samples: Samples, engine: Engine, rounds: Rounds = _ROUNDS) -> list[float]:
    """Median seconds per run of models that take turns, on one sample (one batch where its size is fixed)."""
    inputs = next(samples.part(0, samples.step if samples.fixed else 1).batches())
    times = taking_turns(models, inputs, rounds, engine)
    return [float(seconds) for seconds in np.median(times, axis=0)]
