"""Small networks with a selection in the graph: boxes, peaks and classes are chosen among what convolutions score.

What lies behind a selection jumps where a score passes a border, which is what comparisons of two models trip over.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

BOXES = 20
"""So many boxes remain."""


def _block(inputs: int, outputs: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.SiLU())


class _Trunk(nn.Module):
    """Strided convolutions and a depthwise-separable residual block; features of ``width`` channels at a quarter."""

    def __init__(self, channels: int, width: int = 48) -> None:
        super().__init__()
        self.stem = nn.Sequential(_block(channels, 24, 2), _block(24, width, 2))
        self.inner = nn.Sequential(_block(width, width, groups=width), nn.Conv2d(width, width, 1))
        self.out = _block(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, width, H/4, W/4)."""
        x = self.stem(x)
        y: Tensor = self.out(torch.cat([x, x + self.inner(x)], dim=1))
        return y


class YoloNms(nn.Module):
    """An anchor-free head as YOLO's: distances to four borders and class scores, then non-maximum suppression.

    ``per_class`` shifts boxes by their class, as torchvision's batched suppression does.
    """

    def __init__(self, classes: int = 6, *, per_class: bool = False) -> None:
        super().__init__()
        self.trunk = _Trunk(3)
        self.boxes = nn.Sequential(_block(48, 32), nn.Conv2d(32, 4, 1))
        self.scores = nn.Sequential(_block(48, 32), nn.Conv2d(32, classes, 1))
        self.per_class = per_class

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (B, 4), their scores (B) and classes (B) of the first image, B by the data."""
        features = self.trunk(image)
        height, width = features.shape[2:]
        rows = torch.arange(height, dtype=torch.float32).view(1, height, 1).expand(1, height, width)
        columns = torch.arange(width, dtype=torch.float32).view(1, 1, width).expand(1, height, width)
        far = functional.softplus(self.boxes(features)[0]) * 4
        corners = (columns - far[0:1], rows - far[1:2], columns + far[2:3], rows + far[3:4])
        boxes = torch.cat(corners, dim=0).flatten(1).t()
        scores, classes = torch.sigmoid(self.scores(features)[0]).flatten(1).max(dim=0)
        wanted = scores > 0.5
        boxes, scores, classes = boxes[wanted], scores[wanted], classes[wanted]
        apart = boxes + 1000.0 * classes[:, None].to(boxes.dtype) if self.per_class else boxes
        kept = importlib.import_module("torchvision.ops").nms(apart, scores, 0.5)[:BOXES]
        return boxes[kept], scores[kept], classes[kept]


class CentreTopK(nn.Module):
    """Centres of objects: the highest peaks of a heat map, and what other maps hold there."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = _Trunk(3)
        self.heat = nn.Sequential(_block(48, 24), nn.Conv2d(24, 3, 1))
        self.size = nn.Sequential(_block(48, 24), nn.Conv2d(24, 2, 1))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (N, 20) and sizes (N, 2, 20)."""
        features = self.trunk(image)
        heat = torch.sigmoid(self.heat(features))
        heat = heat * (functional.max_pool2d(heat, 3, 1, 1) == heat).to(heat.dtype)
        scores, at = heat.flatten(1).topk(BOXES)
        size = self.size(features).flatten(2)
        spots = (at % size.shape[2]).unsqueeze(1).expand(-1, 2, -1)
        return scores, size.gather(2, spots)


class CornerSuppression(nn.Module):
    """Key points: a score map from which max-pooling removes all but the local maxima, three times, spelled out."""

    def __init__(self, channels: int = 1, radius: int = 2) -> None:
        super().__init__()
        self.trunk = _Trunk(channels)
        self.score = nn.Sequential(_block(48, 65), nn.Conv2d(65, 65, 1))
        self.describe = nn.Sequential(_block(48, 32), nn.Conv2d(32, 16, 1))
        self.radius = radius

    def _pool(self, x: Tensor) -> Tensor:
        return functional.max_pool2d(x, 2 * self.radius + 1, 1, self.radius)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The suppressed score map (N, 2H, 2W) and unit descriptors (N, 16, H/4, W/4)."""
        features = self.trunk(image)
        cells = torch.softmax(self.score(features), dim=1)[:, :-1]
        scores = functional.pixel_shuffle(cells, 8).squeeze(1)
        zeros = torch.zeros_like(scores)
        peaks = scores == self._pool(scores)
        for _ in range(2):
            near = self._pool(peaks.to(scores.dtype)) > 0
            rest = torch.where(near, zeros, scores)
            peaks = peaks | ((rest == self._pool(rest)) & ~near)
        return torch.where(peaks, scores, zeros), functional.normalize(self.describe(features), dim=1)


class RidgeSuppression(nn.Module):
    """A ridge map as of fingerprints: orientation by ArgMax, a binary mask, and suppression across the ridge."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = _Trunk(1)
        self.orientation = nn.Conv2d(48, 8, 1)
        self.mask = nn.Conv2d(48, 1, 1)
        self.ridge = nn.Sequential(_block(48, 24), nn.ConvTranspose2d(24, 8, 4, 4))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Points (N, 1, H, W) where the ridge is at its height, and the orientation (N, 1, H/4, W/4)."""
        features = self.trunk(image)
        angle = self.orientation(features).argmax(dim=1, keepdim=True)
        mask = torch.round(torch.sigmoid(self.mask(features)))
        ridge = torch.sigmoid(self.ridge(features)).amax(dim=1, keepdim=True)
        ridge = ridge * functional.interpolate(mask, scale_factor=4.0, mode="nearest")
        along = functional.max_pool2d(ridge, (1, 5), 1, (0, 2))
        across = functional.max_pool2d(ridge, (5, 1), 1, (2, 0))
        found = ((ridge == along) | (ridge == across)) & (ridge > 0.2)
        return torch.where(found, ridge, torch.zeros_like(ridge)), angle


class ArgMaxGather(nn.Module):
    """Experts that the image chooses: ArgMax over gates picks a row of a table, a cast to integers a column."""

    def __init__(self, experts: int = 5) -> None:
        super().__init__()
        self.trunk = _Trunk(3)
        self.gate = nn.Linear(48, experts)
        self.table = nn.Embedding(experts, 48)
        self.level = nn.Linear(48, 12)
        self.levels = nn.Embedding(9, 4)
        self.out = nn.Sequential(nn.Linear(48, 40), nn.ReLU(), nn.Linear(40, 7))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, 7) and embedded levels (N, 12, 4)."""
        features = self.trunk(image).mean(dim=(2, 3))
        chosen = self.table(self.gate(features).argmax(dim=1))
        steps = torch.clamp(self.level(features) * 3 + 4, 0, 8).to(torch.int64)
        return self.out(features * chosen), self.levels(steps)


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "yolo_nms": YoloNms,
    "yolo_nms_classes": lambda: YoloNms(per_class=True),
    "centre_topk": CentreTopK,
    "corner_maxpool_nms": CornerSuppression,
    "ridge_maxpool_nms": RidgeSuppression,
    "argmax_gather": ArgMaxGather,
}
"""The networks by name."""

INPUTS = {
    "yolo_nms": (3, 64, 64),
    "yolo_nms_classes": (3, 64, 64),
    "centre_topk": (3, 64, 64),
    "corner_maxpool_nms": (1, 96, 96),
    "ridge_maxpool_nms": (1, 64, 64),
    "argmax_gather": (3, 32, 32),
}
"""Shapes of one image for each."""
