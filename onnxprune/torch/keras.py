"""An ONNX model as a Keras 3 model, on Keras's backend ``torch``; imported only where it is asked for."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from typing import Any

import torch
from onnx import helper
from torch import nn

from onnxprune.data.inputs import inputs_of
from onnxprune.errors import UsageError, installing
from onnxprune.ir.model import Model, ModelLike, as_model, load
from onnxprune.ir.shapes import infer_shapes
from onnxprune.passes.normalize import normalize
from onnxprune.torch.module import to_module
from onnxprune.torch.training.batching import any_batch

# Keras reads its backend once, when it is first imported.
os.environ.setdefault("KERAS_BACKEND", "torch")
try:
    import keras
except ImportError as error:
    raise UsageError(f"this needs Keras 3; {installing('keras')}") from error
if keras.backend.backend() != "torch":
    raise UsageError(
        f"Keras computes with {keras.backend.backend()} here, and the module is PyTorch's: set KERAS_BACKEND=torch "
        "before Keras is imported (for TensorFlow see docs/keras.md)"
    )


@keras.saving.register_keras_serializable("onnxprune")
class OnnxLayer(keras.layers.TorchModuleWrapper):  # type: ignore[misc, unused-ignore]
    """An ONNX model as one layer: takes the graph's inputs in order, returns its output, or a tuple of them.

    It is saved as ONNX with its values, not as a pickle: ``keras.saving.load_model`` takes it in safe mode.

    Attributes:
        onnx: the normalised model with an open batch, and the values that it came with.
    """

    def __init__(self, model: Model, **options: Any) -> None:
        self.onnx = any_batch(normalize(model))
        super().__init__(to_module(self.onnx), **options)
        # Else get_weights, and so EarlyStopping's best weights, would be without them. Values are shared, not copied.
        for statistics in _statistics(self.module):
            shared = nn.Parameter(statistics, requires_grad=False)
            self._track_variable(keras.Variable(shared, trainable=False, dtype=str(shared.dtype).rpartition(".")[2]))

    def call(self, *inputs: Any, training: bool | None = None) -> Any:
        """Its outputs. As other layers, unlike its base, it infers where nothing is said or it is frozen."""
        self.module.train(bool(training and self.trainable))
        return self.module(*inputs)

    def compute_output_spec(self, *inputs: Any, training: bool | None = None) -> Any:
        """Shapes and types of its outputs, as the graph has them; None where an extent is open."""
        shapes = infer_shapes(self.onnx)
        specs = [
            keras.KerasTensor(
                tuple(n if shapes.is_static(name, dim) else None for dim, n in enumerate(shapes.extents[name])),
                str(helper.tensor_dtype_to_np_dtype(shapes.elem_types[name])),
            )
            for name in self.module.onnx_outputs
        ]
        return specs[0] if len(specs) == 1 else tuple(specs)

    def save_own_variables(self, store: Any) -> None:
        """By number: names of a file may hold what the store makes folders of."""
        for at, value in enumerate(self.module.state_dict().values()):
            store[str(at)] = keras.ops.convert_to_numpy(value)

    def load_own_variables(self, store: Any) -> None:
        """What `save_own_variables` wrote."""
        names = list(self.module.state_dict())
        self.module.load_state_dict({name: torch.as_tensor(store[str(at)][()]) for at, name in enumerate(names)})

    def get_config(self) -> dict[str, Any]:
        """What it is rebuilt from, besides its variables."""
        base = super(keras.layers.TorchModuleWrapper, self).get_config()
        return {**base, "onnx": base64.b64encode(self.onnx.to_bytes()).decode("ascii")}

    @classmethod
    def from_config(cls, config: dict[str, Any], **_: Any) -> OnnxLayer:
        """The layer that was saved."""
        options = dict(config)
        return cls(load(base64.b64decode(options.pop("onnx"))), **options)


def _statistics(module: nn.Module) -> Iterator[torch.Tensor]:
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._NormBase):
            yield from (values for values in (part.running_mean, part.running_var) if values is not None)


def to_keras(model: ModelLike) -> keras.Model:
    """An ONNX model as a functional Keras model that computes the same, and is trained by ``fit``.

    It has the graph's inputs by their names ("/" becomes "_"), with open batches where the file fixes one for all, and
    its outputs in order. ``onnxprune.torch.write_back`` takes it, and writes its values into the ONNX graph.

    Args:
        model: a Model, ModelProto or path; it is normalised first and not changed.

    Raises:
        ConversionError: operators without a converter; the message names all of them.
        DataError: an input is no tensor of numbers with a known rank.
        ModelError: the model cannot be read.
        ShapeError: the shapes contradict the model.
    """
    layer = OnnxLayer(as_model(model), name="onnx")
    inputs = [
        keras.Input(batch_shape=spec.shape, dtype=str(spec.dtype), name=spec.name.replace("/", "_"))
        for spec in inputs_of(layer.onnx)
    ]
    return keras.Model(inputs[0] if len(inputs) == 1 else inputs, layer(*inputs))
