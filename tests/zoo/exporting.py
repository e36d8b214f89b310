"""One door to both of PyTorch's ONNX exporters."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

TORCHSCRIPT_OPSET = 17


@dataclass(frozen=True)
class ExportOptions:
    """What an exporter is asked for.

    `opset` None means the exporter's usual one. `dynamic` names the input's symbolic axes: (axis, name)
    pairs. `keep_batchnorm` leaves BatchNormalization nodes in place, where the exporters by default fold them
    into the convolution before.
    """

    exporter: str = "torchscript"
    opset: int | None = None
    dynamic: tuple[tuple[int, str], ...] = ()
    keep_batchnorm: bool = False


def export_module(model: nn.Module, example: torch.Tensor, path: Path, options: ExportOptions) -> None:
    """Write `model` as a single ONNX file, whole or not at all.

    Raises ValueError for an exporter other than "torchscript" and "dynamo", and whatever PyTorch raises where
    it cannot export.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        if options.exporter == "torchscript":
            _torchscript(model, example, partial, options)
        elif options.exporter == "dynamo":
            _dynamo(model, example, partial, options)
        else:
            raise ValueError(f"no exporter {options.exporter!r}: use 'torchscript' or 'dynamo'")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _torchscript(model: nn.Module, example: torch.Tensor, path: Path, options: ExportOptions) -> None:
    mode = torch.onnx.TrainingMode
    torch.onnx.export(
        model,
        (example,),
        str(path),
        dynamo=False,
        opset_version=options.opset or TORCHSCRIPT_OPSET,
        input_names=["input"],
        dynamic_axes={"input": dict(options.dynamic)} if options.dynamic else None,
        training=mode.PRESERVE if options.keep_batchnorm else mode.EVAL,
    )


def _dynamo(model: nn.Module, example: torch.Tensor, path: Path, options: ExportOptions) -> None:
    if options.dynamic:  # the exporter would take a batch of one for a constant
        example = example.repeat(2, *[1] * (example.dim() - 1))
    torch.onnx.export(
        model,
        (example,),
        str(path),
        dynamo=True,
        opset_version=options.opset,
        input_names=["input"],
        dynamic_shapes=(dict(options.dynamic),) if options.dynamic else None,
        external_data=False,
        optimize=not options.keep_batchnorm,
        verbose=False,
    )
