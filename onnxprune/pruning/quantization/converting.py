"""Smaller forms that need no calibration: float16, weights of 8 or 4 bits, integers with ranges found as it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxprune.analysis.binding import find_binding
from onnxprune.data.fidelity import Fidelity, measure_fidelity
from onnxprune.data.samples import Samples, collect
from onnxprune.data.synthetic import read_synthetic
from onnxprune.errors import DataError, UsageError
from onnxprune.ir.caches import default_folder
from onnxprune.ir.engine import Engine
from onnxprune.ir.model import Model, ModelLike, as_model, load
from onnxprune.ir.session import Session, first_line, random_inputs
from onnxprune.passes.normalize import normalize
from onnxprune.pruning.calibration import sourced
from onnxprune.pruning.options import by_keyword
from onnxprune.pruning.quantization.formats import format_here
from onnxprune.pruning.quantization.measuring import Judge, Loss, compare_floats, seconds_of
from onnxprune.pruning.quantization.options import ConvertOptions
from onnxprune.pruning.quantization.preparing import difference, layers_of, named, refuse_quantised
from onnxprune.pruning.quantization.quietly import quietly
from onnxprune.pruning.quantization.stored import StoredWeights, compare_weights
from onnxprune.pruning.quantization.writing import described

#: Samples that are made where none are given, and how many are taken of those that are.
_MADE, _MOST = 8, 128
#: Numbers of a weight for which a scale and two more nodes are worth it, and of a block with one scale.
_LEAST, _BLOCK = 256, 32
#: A file is smaller, or a run faster, from this ratio on: less is noise.
_WORTH = 0.95
#: What stays in 32 bits where onnxruntime crashes else: 1.32 loses a tensor of 16 bits as it fuses these with a MatMul
#: (ViT-B/16), and looks for it as it changes layouts.
_CRASHING = ("Transpose",)
#: What Python ends with, by itself or for an error.
_ENDED = (0, 1)
#: Bytes of a message; protobuf's end at 2 GB.
_LARGEST = 1_900_000_000


@dataclass(frozen=True)
class Conversion:
    """A model in a smaller form, and what is known of it.

    Attributes:
        model: the result.
        form: what was asked for: ``float16``, ``int8 weights``, ``int4 weights`` or ``dynamic int8``.
        weights: what was proven of the weights.
        loss: how far the outputs are from the float model's.
        fidelity: the same in the words of the task; None where the outputs are no list of samples.
        generated: whether the samples for that were made, because none were given.
        sizes: bytes of the file before and after.
        seconds: of a run of the float model and of the result, taking turns.
        engine: what they were timed with.
    """

    model: Model
    form: str
    weights: StoredWeights
    loss: Loss
    fidelity: Fidelity | None
    generated: bool
    sizes: tuple[int, int]
    seconds: tuple[float, float]
    engine: Engine

    @property
    def ratio(self) -> float:
        """Time of the result over that of the float model."""
        return self.seconds[1] / self.seconds[0]

    @property
    def faster(self) -> bool:
        """Whether a run takes less time."""
        return self.ratio < _WORTH

    @property
    def smaller(self) -> bool:
        """Whether the file is smaller."""
        return self.sizes[1] < _WORTH * self.sizes[0]

    def save(self, path: str | os.PathLike[str], *, overwrite_input: bool = False) -> None:
        """Write the result; see :meth:`Model.save`."""
        self.model.save(path, overwrite_input=overwrite_input)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the model as plain data for JSON."""
        return {
            "form": self.form,
            "weights": {"compared": self.weights.count, "worst_steps": self.weights.worst},
            "sqnr": dict(self.loss.sqnr),
            "error": dict(self.loss.errors),
            "generated_samples": self.generated,
            "samples": self.loss.samples,
            "file_size": {"before": self.sizes[0], "after": self.sizes[1]},
            "smaller": self.smaller,
            "seconds": {"float": self.seconds[0], "result": self.seconds[1], "ratio": self.ratio},
            "faster": self.faster,
            "engine": self.engine.to_dict(),
            "fidelity": None if self.fidelity is None else self.fidelity.to_dict(),
        }


def _converted(model: ModelLike, options: ConvertOptions) -> Conversion:
    """Write a model in a smaller form that needs no calibration, and prove and measure the result.

    Args:
        model: a Model, ModelProto or path.

    Raises:
        DataError: the samples are empty, not finite, or do not fit the model.
        UsageError: no form is given, the model is quantised already, or has nothing that the form is for.
        VerificationError: the result is not what it should be.
        MeasurementError: it cannot be timed.
    """
    form = options.form
    if form is None:
        raise UsageError("give a form: fp16, weights or dynamic")
    source, engine = as_model(model), Engine(options.threads)
    refuse_quantised(source)
    samples = _samples(source, options)
    prepared = _prepared(source, form, samples)
    try:
        with quietly():
            result = described(source, load(_sorted(_FORMS[form](prepared))))
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"onnxruntime cannot write the model as {form}: {first_line(error)}") from error
    compared = compare_weights(prepared, result)
    if not compared.count:
        raise UsageError(f"the model has no float32 weight that {form} is for; nothing to do")
    before, after = seconds_of([source, result], samples, engine)
    return Conversion(
        model=result,
        form=form,
        weights=compared,
        loss=_loss(source, result, samples),
        fidelity=_fidelity(source, result, samples),
        generated=options.calibration is None,
        sizes=(source.file_size, result.file_size),
        seconds=(before, after),
        engine=engine,
    )


def _samples(source: Model, options: ConvertOptions) -> Samples:
    """What the result is compared on: what was given, else noise with structure, else noise."""
    if isinstance(options.calibration, Samples):
        return options.calibration
    if options.calibration is not None:
        return collect(sourced(options.calibration, source), source, _MOST)
    try:
        return collect(read_synthetic(f"synthetic:{_MADE}", normalize(source), None, default_folder()), source, _MADE)
    except DataError:
        inputs = random_inputs(source, find_binding(source).shapes, 0)
        return Samples(inputs, None, max(len(next(iter(inputs.values()))), 1), fixed=True)


def _loss(source: Model, result: Model, samples: Samples) -> Loss:
    """What the outputs lose: sample by sample, or in a single run where outputs are no list of samples."""
    loss = Judge.of(source, samples).loss(result)
    if loss.errors:
        return loss
    inputs = next(samples.batches())
    before, after = (
        {name: value.astype(np.float64) for name, value in Session(model, what, threads=1).run(inputs).items()}
        for model, what in ((source, "the float model"), (result, "the converted model"))
    )
    return compare_floats(before, after, len(samples.part(0, samples.step)))


def _fidelity(source: Model, result: Model, samples: Samples) -> Fidelity | None:
    """What is left of the answers; None where no output is a list of them, sample by sample."""
    try:
        return measure_fidelity(source, result, samples)
    except DataError:
        return None


def _prepared(source: Model, form: str, samples: Samples) -> Model:
    """The float model whose weights are stored anew: for products of integers each Gemm is a MatMul and an Add."""
    plain = named(normalize(source))
    if form not in ("int4 weights", "dynamic int8"):
        return plain
    from onnxruntime.quantization.onnx_model import ONNXModel

    changed = ONNXModel(_copied(plain))
    changed.replace_gemm_with_matmul()
    prepared = named(load(changed.model))
    if (told := difference(plain, prepared, samples)) is not None:
        raise UsageError(f"the model's Gemm cannot be written as MatMul: {told}")
    return prepared


def _sorted(proto: onnx.ModelProto) -> onnx.ModelProto:
    """With every node behind those that it reads: converters add theirs at the end, which onnx.checker refuses."""
    from onnxruntime.quantization.onnx_model import ONNXModel

    ONNXModel(proto).topological_sort()
    return proto


def _copied(model: Model) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    proto.CopyFrom(model.to_proto())
    return proto


def _half(model: Model) -> onnx.ModelProto:
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    found: onnx.ModelProto
    for floats in ((), _CRASHING):
        blocked = [*DEFAULT_OP_BLOCK_LIST, *floats]
        found = _sorted(convert_float_to_float16(_copied(model), keep_io_types=True, op_block_list=blocked))
        if not _crashes(found):
            return found
    raise UsageError("onnxruntime crashes as it loads the model in float16; nothing was written")


def _crashes(proto: onnx.ModelProto) -> bool:
    """Whether onnxruntime dies as it loads a file, which it may refuse: tried in a process of its own."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(proto, path, save_as_external_data=proto.ByteSize() > _LARGEST)
        program = f"import onnxruntime; onnxruntime.InferenceSession({str(path)!r}, providers=['CPUExecutionProvider'])"
        return subprocess.run([sys.executable, "-c", program], capture_output=True).returncode not in _ENDED


def _bytes(model: Model) -> onnx.ModelProto:
    """Weights as bytes times a scale for every channel.

    As Cast and Mul, which onnxruntime folds as it loads a file; a DequantizeLinear it computes in every run (1.32:
    ResNet-18 takes 23 ms so, and 17 ms in floats and with Cast and Mul).
    """
    proto = _copied(model)
    layers = set(layers_of(model))
    wanted = {name for node in proto.graph.node if node.name in layers for name in node.input}
    nodes, taken = [], {name for node in proto.graph.node for name in node.output} | set(model.weights)
    for tensor in list(proto.graph.initializer):
        if tensor.name not in wanted or tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        weight = model.weights[tensor.name].array
        if weight.size < _LEAST or not np.isfinite(weight).all():
            continue
        # Whichever of the first two axes the output channels lie on, its scales are closer.
        numbers, scale = min((_per_channel(weight, axis) for axis in (0, 1)), key=lambda found: _error(weight, *found))
        names = [_free(f"{tensor.name}_{what}", taken) for what in ("int8", "scale", "cast")]
        nodes += [
            helper.make_node("Cast", [names[0]], [names[2]], name=names[2], to=TensorProto.FLOAT),
            helper.make_node("Mul", [names[2], names[1]], [tensor.name], name=_free(f"{tensor.name}_scaled", taken)),
        ]
        proto.graph.initializer.remove(tensor)
        proto.graph.initializer.extend(
            [numpy_helper.from_array(numbers, names[0]), numpy_helper.from_array(scale, names[1])]
        )
    rest = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*nodes, *rest])
    return proto


def _per_channel(weight: NDArray[Any], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    others = tuple(dim for dim in range(weight.ndim) if dim != axis)
    scale = (np.abs(weight).max(axis=others, keepdims=True) / 127).astype(np.float32)
    scale[scale == 0] = 1
    return np.clip(np.rint(weight / scale), -127, 127).astype(np.int8), scale


def _error(weight: NDArray[Any], numbers: NDArray[np.int8], scale: NDArray[np.float32]) -> float:
    return float(np.square(numbers * scale - weight).sum())


def _free(name: str, taken: set[str]) -> str:
    """The name, or one like it that nothing has; it is taken then."""
    found, number = name, 1
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    taken.add(found)
    return found


def _nibbles(model: Model) -> onnx.ModelProto:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(_copied(model), bits=4, block_size=_BLOCK)
    quantizer.process()
    found: onnx.ModelProto = quantizer.model.model
    return found


def _dynamic(model: Model) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with TemporaryDirectory() as folder:
        path = Path(folder) / "dynamic.onnx"
        quantize_dynamic(
            _copied(model),
            path,
            op_types_to_quantize=["LSTM", "MatMul"],
            per_channel=True,
            reduce_range=format_here().reduced,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(path)


_FORMS: Mapping[str, Callable[[Model], onnx.ModelProto]] = {
    "float16": _half,
    "int8 weights": _bytes,
    "int4 weights": _nibbles,
    "dynamic int8": _dynamic,
}

convert = by_keyword(ConvertOptions)(_converted)
convert.__name__ = convert.__qualname__ = "convert"
