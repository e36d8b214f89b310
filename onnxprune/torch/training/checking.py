"""The proof that the written model computes what the trained module computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto

from onnxprune.data.logits import without_ending
from onnxprune.errors import VerificationError
from onnxprune.ir.model import Model
from onnxprune.ir.session import Session
from onnxprune.torch.jumps import replayed
from onnxprune.torch.module import OnnxModule
from onnxprune.torch.outputs import giving
from onnxprune.torch.training.batching import sized
from onnxprune.torch.training.preparation import Prepared

_TOLERANCE = 1e-3
"""Of the largest value: the two sum in different orders, and BatchNormalization may have been folded between."""


def check_written(module: OnnxModule, model: Model, prepared: Prepared, inputs: Mapping[str, NDArray[Any]]) -> None:
    """Compare a module in ``eval`` mode with the model of its weights, in onnxruntime, on these inputs.

    Behind thresholds and rounding both go on from the same decisions (see :mod:`onnxprune.torch.jumps`).

    Raises:
        VerificationError: onnxruntime does not run the model, or gives something else.
    """
    from onnxprune.data import inputs_of

    Session(model, "the trained model", threads=1)
    inputs = sized(inputs, next((spec.batch for spec in inputs_of(model) if spec.batch is not None), None))
    comparable = without_ending(model, prepared.head, prepared.cut)
    outputs = [value.name for value in comparable.graph.output]
    made = {name for node in comparable.graph.node for name in node.output} - set(outputs)
    jumps = [name for name in dict.fromkeys(module.onnx_jumps.values()) if name in made]
    told = giving(comparable, outputs, jumps, TensorProto.UNDEFINED) if jumps else comparable
    results = Session(told, "the trained model", threads=1).run(inputs)
    arguments = [torch.from_numpy(inputs[name]) for name in module.onnx_inputs]
    tensors = replayed(module, arguments, {name: results.pop(name) for name in jumps}, _TOLERANCE)
    for (name, wanted), got in zip(results.items(), tensors, strict=True):
        if wanted.dtype.kind != "f":
            continue
        gap = np.abs(wanted.astype(np.float64) - got.to(torch.float64).numpy())
        scale = max(float(np.abs(wanted).max(initial=0.0)), 1e-6)
        # Not "gap > allowed": NaN must not pass.
        if not bool((gap <= _TOLERANCE * scale).all()):
            raise VerificationError(
                f"output '{name}' of the trained model differs in onnxruntime from PyTorch by "
                f"{float(gap.max()) / scale:.1e} of the largest value ({_TOLERANCE:.0e} allowed); nothing was written"
            )
