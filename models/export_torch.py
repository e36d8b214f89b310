"""Writes a PyTorch network as ONNX, by either of PyTorch's two exporters."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx
import torch
from torch import nn

SHAPE = (1, 28, 28)
# The dynamo exporter notes for every node the source lines it came from, with paths of the exporting machine.
_PATHS_OF_THE_MACHINE = "pkg.torch.onnx.stack_trace"


@dataclass(frozen=True)
class TorchExport:
    """One way to export a network.

    ``keep_batch_norm`` keeps BatchNormalization as nodes, which only the TorchScript exporter can do.
    """

    exporter: Literal["torchscript", "dynamo"]
    opset: int
    dynamic_batch: bool = True
    keep_batch_norm: bool = False


def export(network: nn.Module, how: TorchExport, file: Path) -> None:
    """Write ``network`` to ``file``, with an input ``image`` (N, 1, 28, 28) and an output ``logits``."""
    # Two images: with one, the dynamo exporter takes the batch for the constant 1.
    example = torch.zeros(2 if how.dynamic_batch else 1, *SHAPE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the TorchScript exporter calls itself deprecated
        if how.exporter == "torchscript":
            _export_torchscript(network, how, example, file)
        else:
            _export_dynamo(network, how, example, file)


def _export_torchscript(network: nn.Module, how: TorchExport, example: torch.Tensor, file: Path) -> None:
    # PRESERVE leaves the network in evaluation mode but skips the folding of BatchNormalization.
    mode = torch.onnx.TrainingMode.PRESERVE if how.keep_batch_norm else torch.onnx.TrainingMode.EVAL
    torch.onnx.export(
        network,
        (example,),
        file,
        dynamo=False,
        opset_version=how.opset,
        training=mode,
        do_constant_folding=not how.keep_batch_norm,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}} if how.dynamic_batch else None,
    )


def _export_dynamo(network: nn.Module, how: TorchExport, example: torch.Tensor, file: Path) -> None:
    torch.onnx.export(
        network,
        (example,),
        file,
        dynamo=True,
        opset_version=how.opset,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},) if how.dynamic_batch else None,
        external_data=False,
        verbose=False,
    )
    model = onnx.load(file)
    for node in model.graph.node:
        kept = [entry for entry in node.metadata_props if entry.key != _PATHS_OF_THE_MACHINE]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    onnx.save(model, file)
