"""From a float model to one that computes in integers where that is faster, with its proof and what it costs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import onnx

from onnxprune.data.fidelity import Fidelity, measure_fidelity
from onnxprune.data.samples import Samples, collect_both
from onnxprune.errors import UsageError
from onnxprune.ir.engine import Engine
from onnxprune.ir.model import Model, ModelLike, as_model
from onnxprune.pruning.options import by_keyword
from onnxprune.pruning.quantization.calibrating import Ranges, collect_histograms, methods_of
from onnxprune.pruning.quantization.certificate import QuantizationCertificate, certify_quantised
from onnxprune.pruning.quantization.formats import Format, format_here
from onnxprune.pruning.quantization.measuring import Judge, Loss, seconds_of
from onnxprune.pruning.quantization.options import QuantizeOptions
from onnxprune.pruning.quantization.preparing import layers_of, prepare
from onnxprune.pruning.quantization.selecting import Workshop, fastest
from onnxprune.pruning.quantization.writing import quantisable, write_quantised

Progress = Callable[[str], AbstractContextManager[None]]
"""Called with what a step does; the step is done within the context."""

HELD_OUT = 128
"""Samples that a result is compared on."""
#: Samples that calibration methods are compared on, and what the certificate runs on.
_JUDGED, _CERTIFIED = 32, 1


def _quietly(step: str) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True)
class Quantization:
    """A model that computes in integers where that is faster, and what is known of it.

    Attributes:
        model: the result; the float model where no layer is faster in integers.
        certificate: what was proven; None for a float model.
        layers: the layers in integers.
        floats: those that stay float, with reasons.
        method: how the ranges of tensors follow from their values.
        format: the numbers, as ``U8S8`` (activations, then weights).
        loss: how far the outputs are from the float model's on samples held out.
        fidelity: the same in the words of the task.
        samples: how many samples the ranges are from.
        seconds: of a run of the float model and of the result, taking turns.
        engine: what they were timed with.
    """

    model: Model
    certificate: QuantizationCertificate | None
    layers: tuple[str, ...]
    floats: Mapping[str, str]
    method: str
    format: Format
    loss: Loss
    fidelity: Fidelity
    samples: int
    seconds: tuple[float, float]
    engine: Engine

    @property
    def ratio(self) -> float:
        """Time of the result over that of the float model."""
        return self.seconds[1] / self.seconds[0]

    @property
    def proto(self) -> onnx.ModelProto:
        """The result as one ModelProto. Do not change it."""
        return self.model.proto

    def save(self, path: str | os.PathLike[str], *, overwrite_input: bool = False) -> None:
        """Write the result; see :meth:`Model.save`."""
        self.model.save(path, overwrite_input=overwrite_input)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the model as plain data for JSON."""
        return {
            "layers": list(self.layers),
            "floats": dict(self.floats),
            "method": self.method,
            "format": str(self.format),
            "samples": self.samples,
            "sqnr": dict(self.loss.sqnr),
            "error": dict(self.loss.errors),
            "seconds": {"float": self.seconds[0], "result": self.seconds[1], "ratio": self.ratio},
            "engine": self.engine.to_dict(),
            "certificate": None if self.certificate is None else self.certificate.to_dict(),
            "fidelity": self.fidelity.to_dict(),
        }


def quantise_model(
    source: Model, fit: Samples, held_out: Samples, options: QuantizeOptions, progress: Progress = _quietly
) -> Quantization:
    """Quantise a model with samples that are at hand.

    Args:
        source: the float model.
        fit: what ranges follow from.
        held_out: what the result is compared on.
        options: how.
        progress: gives a context for every step, by what the step does.

    Raises:
        UsageError: the model is quantised already, or onnxruntime.quantization cannot take it.
        VerificationError: the result is not what it should be.
        MeasurementError: it cannot be timed.
    """
    engine, format = Engine(options.threads), format_here()
    with progress("Preparing"):
        prepared = prepare(source, fit)
        known = set(quantisable(prepared))
        layers, floats = _split(prepared, known, options.keep_float)
        others = tuple(name for name in quantisable(prepared) if name not in layers and name not in floats)
    if not layers:
        raise UsageError("the model has no layer with weights that onnxruntime.quantization knows; nothing to quantise")
    with progress("Calibrating"):
        histograms = collect_histograms(prepared, fit)
        judge = Judge.of(source, held_out.part(0, _whole(held_out, _JUDGED)))
        found = [histograms.ranges(method) for method in methods_of(options.method)]
        ranges = _closest(prepared, found, (*layers, *others), format, judge)
    with progress("Choosing what becomes int8"):
        choice = fastest(Workshop(source, prepared, ranges, format, held_out, engine, layers, others))
    certificate = None
    if choice is None:
        floats.update(dict.fromkeys(layers, "the whole file would be slower"))
        result = source
    else:
        floats.update(choice.reasons)
        result = choice.model
        with progress("Verifying"):
            inputs = next(held_out.part(0, _whole(held_out, _CERTIFIED)).batches())
            certificate = certify_quantised(prepared, result, ranges, inputs)
            certificate.require()
    with progress("Comparing"):
        before, after = seconds_of([source, result], held_out, engine)
        return Quantization(
            model=result,
            certificate=certificate,
            layers=tuple(name for name in layers if choice is not None and name in choice.nodes),
            floats=floats,
            method=ranges.method,
            format=format,
            loss=judge.loss(result),
            fidelity=measure_fidelity(source, result, held_out),
            samples=len(fit),
            seconds=(before, after),
            engine=engine,
        )


def _split(prepared: Model, known: set[str], keep: Any) -> tuple[tuple[str, ...], dict[str, str]]:
    """The layers that may become integers, and those that stay float, with reasons."""
    found, floats = [], {}
    for name in layers_of(prepared):
        if any(name == pattern or fnmatchcase(name, pattern) for pattern in keep):
            floats[name] = "asked for"
        elif name not in known:
            floats[name] = "onnxruntime.quantization has no form for it"
        else:
            found.append(name)
    return tuple(found), floats


def _whole(samples: Samples, count: int) -> int:
    """About so many samples, such that no batch of a fixed size is torn."""
    return max(count // samples.step, 1) * samples.step if samples.fixed else count


def _closest(prepared: Model, found: list[Ranges], nodes: tuple[str, ...], format: Format, judge: Judge) -> Ranges:
    """The ranges that keep the outputs closest when all nodes become integers."""
    if len(found) == 1:
        return found[0]
    losses = [judge.loss(write_quantised(prepared, ranges, nodes, format)).worst for ranges in found]
    return found[losses.index(min(losses))]


def _quantised(model: ModelLike, options: QuantizeOptions) -> Quantization:
    """Make a model compute in 8-bit integers where that is faster, and prove and measure the result.

    Args:
        model: a Model, ModelProto or path.

    Raises:
        DataError: the calibration data is empty, not finite, or does not fit the model.
        UsageError: there is no calibration data, the model is quantised already, or onnxruntime.quantization cannot
            take it.
        VerificationError: the result is not what it should be.
        MeasurementError: it cannot be timed.
    """
    if options.calibration is None:
        raise UsageError("quantising needs calibration data; labels are not needed")
    source = as_model(model)
    if isinstance(options.calibration, Samples):
        return quantise_model(source, options.calibration, options.calibration, options)
    fit, held_out, _ = collect_both(options.calibration, source, options.calibration_samples, evaluate=HELD_OUT)
    return quantise_model(source, fit, held_out, options)


quantize = by_keyword(QuantizeOptions)(_quantised)
quantize.__name__ = quantize.__qualname__ = "quantize"
