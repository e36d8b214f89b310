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


Examples = torch.Tensor | tuple[torch.Tensor, ...]
"""One example per input of a network."""


def export_module(model: nn.Module, example: Examples, path: Path, options: ExportOptions) -> None:
    """Write `model` as a single ONNX file, whole or not at all. Open axes are those of every input.

    Raises ValueError for an exporter other than "torchscript" and "dynamo", and whatever PyTorch raises where
    it cannot export.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    examples = example if isinstance(example, tuple) else (example,)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        if options.exporter == "torchscript":
            _torchscript(model, examples, partial, options)
        elif options.exporter == "dynamo":
            _dynamo(model, examples, partial, options)
        else:
            raise ValueError(f"no exporter {options.exporter!r}: use 'torchscript' or 'dynamo'")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _torchscript(model: nn.Module, examples: tuple[torch.Tensor, ...], path: Path, options: ExportOptions) -> None:
    mode = torch.onnx.TrainingMode
    names = _input_names(examples)
    torch.onnx.export(
        model,
        examples,
        str(path),
        dynamo=False,
        opset_version=options.opset or TORCHSCRIPT_OPSET,
        input_names=names,
        dynamic_axes={name: dict(options.dynamic) for name in names} if options.dynamic else None,
        training=mode.PRESERVE if options.keep_batchnorm else mode.EVAL,
    )


def _dynamo(model: nn.Module, examples: tuple[torch.Tensor, ...], path: Path, options: ExportOptions) -> None:
    if options.dynamic:  # the exporter would take a batch of one for a constant
        examples = tuple(example.repeat(2, *[1] * (example.dim() - 1)) for example in examples)
    torch.onnx.export(
        model,
        examples,
        str(path),
        dynamo=True,
        opset_version=options.opset,
        input_names=_input_names(examples),
        dynamic_shapes=tuple(dict(options.dynamic) for _ in examples) if options.dynamic else None,
        external_data=False,
        optimize=not options.keep_batchnorm,
        verbose=False,
    )


def _input_names(examples: tuple[torch.Tensor, ...]) -> list[str]:
    return ["input", *(f"input_{number}" for number in range(2, len(examples) + 1))]
