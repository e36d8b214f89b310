"""Well-known networks as ONNX files, exported here and now by PyTorch and cached beside the fetched models.

    export("resnet50", exporter="dynamo")

MobileNetV2 carries its published ImageNet weights, the others seeded random ones (see `initialise`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from .exporting import ExportOptions, export_module
from .initialise import initialise
from .nets.concatenating import densenet, googlenet
from .nets.mobile import MobileNetV2, efficientnet_b0, mobilenet_v3_small, shufflenet_v2
from .nets.residual import regnet_y, resnet
from .sources import cache_folder, fetch

_BUILDERS: Mapping[str, Callable[[], nn.Module]] = {
    "mobilenet_v2": MobileNetV2,
    "resnet18": lambda: resnet((2, 2, 2, 2), bottleneck=False),
    "resnet50": lambda: resnet((3, 4, 6, 3), bottleneck=True),
    "resnext50_32x4d": lambda: resnet((3, 4, 6, 3), bottleneck=True, groups=32, group_width=4),
    "densenet121": lambda: densenet((6, 12, 24, 16)),
    "densenet201": lambda: densenet((6, 12, 48, 32)),
    "efficientnet_b0": efficientnet_b0,
    "googlenet": googlenet,
    "shufflenet_v2_x1_0": shufflenet_v2,
    "regnet_y_400mf": lambda: regnet_y((1, 3, 6, 6), (48, 104, 208, 440), 8),
    "regnet_y_3_2gf": lambda: regnet_y((2, 5, 13, 1), (72, 216, 576, 1512), 24),
    "mobilenet_v3_small": mobilenet_v3_small,
}

NAMES: tuple[str, ...] = tuple(_BUILDERS)
"""The networks that `build` and `export` know; the names are torchvision's."""

DYNAMIC_AXES = ((0, "batch"), (2, "height"), (3, "width"))
"""The input axes that `export(dynamic=True)` leaves open."""


def build(name: str, seed: int = 0, size: int = 224) -> nn.Module:
    """The network `name` in eval mode, ready to use.

    `size` is the height and width of the noise that sets BatchNorm statistics. Raises KeyError for an unknown
    name and, for MobileNetV2, `sources.UnavailableError` when its weights cannot be fetched.
    """
    torch.manual_seed(seed)
    model = _BUILDERS[name]()
    if name == "mobilenet_v2":
        state = torch.load(fetch("mobilenet_v2_weights"), map_location="cpu", weights_only=True)
        model.load_state_dict(state)
        return model.eval()
    return initialise(model, torch.zeros(1, 3, size, size), seed)


def export(
    name: str,
    exporter: str = "torchscript",
    opset: int | None = None,
    dynamic: bool = False,
    size: int = 224,
    *,
    keep_batchnorm: bool = False,
    seed: int = 0,
) -> Path:
    """The ONNX file of network `name`; exported at the first call, the same file ever after.

    `exporter` is "torchscript" or "dynamo", `dynamic` makes batch, height and width symbolic, `size` is the
    input's height and width, and `keep_batchnorm` stops the exporter from folding BatchNormalization.
    """
    options = ExportOptions(exporter, opset, DYNAMIC_AXES if dynamic else (), keep_batchnorm)
    key = repr((options, size, seed, torch.__version__, _code_hash()))
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    path = cache_folder() / "networks" / f"{name}-{exporter}-{digest}.onnx"
    if not path.exists():
        export_module(build(name, seed, size), torch.zeros(1, 3, size, size), path, options)
    return path


def _code_hash() -> str:
    """Changes with the code that decides what an exported file holds, so that no stale file is served."""
    here = Path(__file__).parent
    files = [
        here / "initialise.py",
        here / "exporting.py",
        Path(__file__),
        *sorted((here / "nets").glob("*.py")),
    ]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
