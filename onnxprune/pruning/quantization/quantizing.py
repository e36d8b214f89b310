"""From a float model to one that computes in integers where that is faster, with its proof and what it costs."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import onnx

from onnxprune.data.fidelity import Fidelity, measure_fidelity
from onnxprune.data.samples import Samples, collect_both
from onnxprune.errors import UsageError, VerificationError, unknown
from onnxprune.ir.engine import Engine
from onnxprune.ir.model import Model, ModelLike, as_model
from onnxprune.pruning.calibration import sourced
from onnxprune.pruning.options import IntegerOptions, by_keyword
from onnxprune.pruning.quantization.calibrating import Histograms, Ranges, collect_histograms, methods_of
from onnxprune.pruning.quantization.certificate import QuantizationCertificate, certify_quantised
from onnxprune.pruning.quantization.correcting import with_corrected_biases
from onnxprune.pruning.quantization.equalising import with_equalised_channels
from onnxprune.pruning.quantization.formats import Format, format_here
from onnxprune.pruning.quantization.measuring import Judge, Loss, seconds_of
from onnxprune.pruning.quantization.options import QuantizeOptions
from onnxprune.pruning.quantization.preparing import difference, layers_of, prepare
from onnxprune.pruning.quantization.selecting import Choice, Workshop, fastest_of, with_joined_groups
from onnxprune.pruning.quantization.sparing import spare
from onnxprune.pruning.quantization.writing import quantisable

Progress = Callable[[str], AbstractContextManager[object]]
"""Called with what a step does; the step is done within the context."""

HELD_OUT = 128
"""Samples that a result is compared on."""
#: Samples that calibration methods are compared on, and what the certificate runs on.
_JUDGED, _CERTIFIED = 32, 1
#: Samples that ranges follow from where only the time of a file is asked for.
_TIMED = 4

#: Biases and the factors of channels change where that takes so much of the error.
_CORRECTING = 0.95


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
        corrected: whether biases make good what the weights' rounding adds on average.
        equalised: in how many stretches between layers channels got factors, to use the ranges of tensors alike.
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
    corrected: bool
    equalised: int
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
            "corrected_biases": self.corrected,
            "equalised": self.equalised,
            "samples": self.samples,
            "sqnr": dict(self.loss.sqnr),
            "error": dict(self.loss.errors),
            "seconds": {"float": self.seconds[0], "result": self.seconds[1], "ratio": self.ratio},
            "engine": self.engine.to_dict(),
            "certificate": None if self.certificate is None else self.certificate.to_dict(),
            "fidelity": self.fidelity.to_dict(),
        }


def quantise_model(
    source: Model,
    fit: Samples,
    held_out: Samples,
    options: IntegerOptions,
    *,
    engine: Engine | None = None,
    progress: Progress = _quietly,
) -> Quantization:
    """Quantise a model with samples that are at hand.

    Args:
        source: the float model.
        fit: what ranges follow from.
        held_out: what the result is compared on.
        options: how.
        engine: what times are measured with; onnxruntime with one thread if not given.
        progress: gives a context for every step, by what the step does.

    Raises:
        UsageError: the model is quantised already, a layer to keep is not known, or onnxruntime.quantization cannot
            take it.
        VerificationError: the result is not what it should be.
        MeasurementError: it cannot be timed.
    """
    engine = engine or Engine()
    shop, floats, histograms = _begun(source, fit, held_out, options, engine, progress)
    judged, unseen = _parted(held_out)
    judge, methods, layers = Judge.of(source, judged), methods_of(options.method), shop.layers
    with progress("Choosing what becomes int8"):
        # Times do not depend on where ranges end.
        shop, choice = fastest_of([shop, *with_joined_groups(shop)])
        corrected, equalised, why = False, 0, "the whole file would be slower"
        if choice is not None:
            shop, choice, corrected, equalised = _brought_close(shop, choice, histograms, methods, fit, judge)
        if choice is not None and options.max_drop is not None:
            choice = spare(shop, choice, judge, options.max_drop)
            why = f"no file with int8 loses less than {options.max_drop:.2%} of the outputs' variance"
    certificate = None
    if choice is not None:
        with progress("Verifying"):
            inputs = next(held_out.part(0, _whole(held_out, _CERTIFIED)).batches())
            certificate = certify_quantised(shop.prepared, choice.model, shop.ranges, inputs)
            certificate.require()
    with progress("Comparing"):
        before, after = seconds_of([source, source if choice is None else choice.model], held_out, engine)
        if choice is not None and after > before:
            # More layers are float than in the fastest file.
            choice, certificate, corrected, equalised, after = None, None, False, 0, before
            why = "with as many layers in floats as the outputs need, the whole file would be slower"
        result = source if choice is None else choice.model
        floats.update(dict.fromkeys(layers, why) if choice is None else choice.reasons)
        return Quantization(
            model=result,
            certificate=certificate,
            layers=tuple(name for name in layers if choice is not None and name in choice.nodes),
            floats=floats,
            method=shop.ranges.method,
            format=shop.format,
            corrected=corrected,
            equalised=equalised,
            loss=Judge.of(source, unseen).loss(result),
            fidelity=measure_fidelity(source, result, unseen),
            samples=len(fit),
            seconds=(before, after),
            engine=engine,
        )


def fastest_integers(source: Model, fit: Samples, held_out: Samples, options: IntegerOptions, engine: Engine) -> Model:
    """A model as :func:`quantise_model` makes it, with ranges from few samples and without proof: for its time.

    Raises:
        UsageError: as there.
        MeasurementError: it cannot be timed.
    """
    few, others = (samples.part(0, _whole(samples, _TIMED)) for samples in (fit, held_out))
    shop, _, _ = _begun(source, few, others, options, engine, _quietly)
    shop, choice = fastest_of([shop, *with_joined_groups(shop)])
    if choice is not None and options.max_drop is not None:
        choice = spare(shop, choice, Judge.of(source, others), options.max_drop)
    return source if choice is None else choice.model


def _begun(
    source: Model, fit: Samples, held_out: Samples, options: IntegerOptions, engine: Engine, progress: Progress
) -> tuple[Workshop, dict[str, str], Histograms]:
    """What all quantised versions start from, the layers that stay float, and how often tensors had which values."""
    with progress("Preparing"):
        prepared = prepare(source, fit)
        require_known(options.keep_float, layers_of(prepared))
        known = quantisable(prepared)
        layers, floats = _split(prepared, set(known), options.keep_float)
        others = tuple(name for name in known if name not in layers and name not in floats)
    if not layers:
        raise UsageError("the model has no layer with weights that onnxruntime.quantization knows; nothing to quantise")
    with progress("Calibrating"):
        histograms = collect_histograms(prepared, fit)
        ranges = histograms.ranges(methods_of(options.method)[0])
    return Workshop(source, prepared, ranges, format_here(), held_out, engine, layers, others), floats, histograms


def _split(prepared: Model, known: set[str], keep: Iterable[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The layers that may become integers, and those that stay float, with reasons."""
    found, floats = [], {}
    for name in layers_of(prepared):
        if any(_means(pattern, name) for pattern in keep):
            floats[name] = "asked for"
        elif name not in known:
            floats[name] = "onnxruntime.quantization has no form for it"
        else:
            found.append(name)
    return tuple(found), floats


def require_known(keep: Iterable[str], layers: Collection[str]) -> None:
    """See that every name or glob means a layer. Raises UsageError."""
    for pattern in keep:
        if not any(_means(pattern, name) for name in layers):
            raise UsageError(f"keep_float: {unknown('layer', pattern, layers)}")


def _means(pattern: str, name: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern)


def _parted(held_out: Samples) -> tuple[Samples, Samples]:
    """Samples to choose by, and others to report on, which are the same where there are few."""
    count = _whole(held_out, _JUDGED)
    rest = held_out.part(count, len(held_out))
    return held_out.part(0, count), rest if len(rest) >= count else held_out


def _whole(samples: Samples, count: int) -> int:
    """About so many samples, such that no batch of a fixed size is torn."""
    return max(count // samples.step, 1) * samples.step if samples.fixed else count


def _brought_close(
    shop: Workshop, choice: Choice, histograms: Histograms, methods: Sequence[str], fit: Samples, judge: Judge
) -> tuple[Workshop, Choice, bool, int]:
    """What keeps the outputs closest with the chosen nodes in integers: ranges, biases, and factors of channels.

    Raises:
        VerificationError: with these factors the float model would compute something else.
    """
    found = _closest(shop, choice, [histograms.ranges(name) for name in methods], fit, judge)
    even, count = with_equalised_channels(shop.prepared, fit)
    if not count:
        return *found, 0
    if (told := difference(shop.prepared, even, fit)) is not None:
        raise VerificationError(f"equal ranges of channels would change the float model: {told}")
    histograms = collect_histograms(even, fit)
    ranges = [histograms.ranges(name) for name in methods]
    other = _closest(replace(shop, prepared=even), choice, ranges, fit, judge)
    better = judge.loss(other[1].model).worst < _CORRECTING * judge.loss(found[1].model).worst
    return (*other, count) if better else (*found, 0)


def _closest(
    shop: Workshop, choice: Choice, found: Sequence[Ranges], fit: Samples, judge: Judge
) -> tuple[Workshop, Choice, bool]:
    """What keeps the outputs closest with the chosen nodes in integers: which ranges, and whether biases change."""
    shops = [replace(shop, ranges=ranges) for ranges in found]
    models = [other.write(choice.nodes) for other in shops]
    errors = [judge.loss(model).worst for model in models]
    best = errors.index(min(errors))
    shop, model = shops[best], models[best]
    with_biases = replace(shop, prepared=with_corrected_biases(shop.prepared, model, fit))
    other = with_biases.write(choice.nodes)
    if judge.loss(other).worst < _CORRECTING * errors[best]:
        return with_biases, replace(choice, model=other), True
    return shop, replace(choice, model=model), False


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
    source, engine = as_model(model), Engine(options.threads)
    if isinstance(options.calibration, Samples):
        return quantise_model(source, options.calibration, options.calibration, options, engine=engine)
    data = sourced(options.calibration, source)
    fit, held_out, _ = collect_both(data, source, options.calibration_samples, evaluate=HELD_OUT)
    return quantise_model(source, fit, held_out, options, engine=engine)


quantize = by_keyword(QuantizeOptions)(_quantised)
quantize.__name__ = quantize.__qualname__ = "quantize"
