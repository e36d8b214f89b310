"""The models that the zoo's tests prune: those of packages, and networks that both of PyTorch's exporters write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import onnx
import pytest

from . import sources

EXPORTERS = ("torchscript", "dynamo")
_EXPORTED = (
    "mobilenet_v2",
    "resnet50",
    "resnext50_32x4d",
    "densenet121",
    "densenet201",
    "efficientnet_b0",
    "googlenet",
    "shufflenet_v2_x1_0",
    "regnet_y_400mf",
    "regnet_y_3_2gf",
    "mobilenet_v3_small",
)
_PACKAGED = (
    *(name for name in sources.NAMES if name.startswith("light_")),
    "rapidocr_det",
    "rapidocr_cls",
    "mtcnn_pnet",
    "mtcnn_rnet",
    "mtcnn_onet",
    "open_nsfw",
)


@dataclass(frozen=True)
class Subject:
    """A model and how to get it; ``shapes`` are those of its inputs, ``network`` its name without the exporter."""

    name: str
    network: str
    load: Callable[[], onnx.ModelProto]
    shapes: Callable[[], dict[str, tuple[int, ...]]]


def _packaged(name: str) -> Subject:
    return Subject(name, name, partial(sources.load, name), partial(sources.input_shapes, name))


def exported(name: str, exporter: str, *, dynamic: bool = False, opset: int | None = None) -> Subject:
    """A network of `networks` as PyTorch writes it; skips the test where PyTorch is not installed."""

    def load() -> onnx.ModelProto:
        pytest.importorskip("torch")
        from .networks import export

        return onnx.load(export(name, exporter, opset, dynamic))

    suffix = ("_dynamic" if dynamic else "") + (f"_opset{opset}" if opset else "")
    return Subject(f"{name}_{exporter}{suffix}", name, load, lambda: {"input": (1, 3, 224, 224)})


ALL = (
    *(_packaged(name) for name in _PACKAGED),
    *(exported(name, exporter) for name in _EXPORTED for exporter in EXPORTERS),
)
"""Every model, the packaged ones first."""

DYNAMIC = (
    *(_packaged(name) for name in ("rapidocr_det", "rapidocr_cls", "mtcnn_pnet", "mtcnn_onet")),
    *(
        exported(name, exporter, dynamic=True)
        for name in ("mobilenet_v2", "shufflenet_v2_x1_0", "googlenet", "efficientnet_b0")
        for exporter in EXPORTERS
    ),
)
"""Models with symbolic dimensions."""

QUICK = frozenset(
    {
        "light_squeezenet",
        "light_shufflenet",
        "rapidocr_det",
        "rapidocr_cls",
        "mtcnn_pnet",
        "mtcnn_rnet",
        "mtcnn_onet",
        "mobilenet_v2_torchscript",
        "mobilenet_v2_dynamo",
        "shufflenet_v2_x1_0_dynamo",
    }
)
"""Models that are small and soon made: these are tested at every change."""
