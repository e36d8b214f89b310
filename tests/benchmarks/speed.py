"""Analysis, plan and shrink in memory, beside the peers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .racing import Run, race

WANTED = {"resnet50": 0.7, "densenet201": 0.7, "efficientnet_b7": 0.7, "vgg16": 0.2}
"""The largest share of onnxsim's time that is good enough."""
TORCH_PRUNED = "densenet201"
WANTED_FASTER = 100
"""How many times faster than Torch-Pruning, on that model."""
EXPORTERS = ("torchscript", "dynamo")


@dataclass(frozen=True)
class Speed:
    """What the tools took for one file. ``torch_pruning`` is None where it was not run."""

    model: str
    exporter: str
    onnxprune: Run
    from_file: Run
    onnxsim: Run
    torch_pruning: Run | None

    @property
    def ratio(self) -> float:
        """Onnxprune's processor time as a share of onnxsim's."""
        return self.onnxprune.cpu / self.onnxsim.cpu

    @property
    def faster(self) -> float | None:
        """How many times faster than Torch-Pruning."""
        return self.torch_pruning.cpu / self.onnxprune.cpu if self.torch_pruning else None

    @property
    def good_enough(self) -> bool:
        """Whether the figures of the project are reached."""
        return self.ratio <= WANTED[self.model] and (self.faster is None or self.faster >= WANTED_FASTER)


def measure(path: Path, repeat: int) -> Speed:
    """Race the tools on ``<exporter>/<model>.onnx``."""
    model, exporter = path.stem, path.parent.name
    against_torch = model == TORCH_PRUNED and exporter == EXPORTERS[0]
    tools = ["onnxprune", "onnxprune file", "onnxsim", *(["Torch-Pruning"] if against_torch else [])]
    runs = race(tools, path, repeat)
    return Speed(model, exporter, runs["onnxprune"], runs["onnxprune file"], runs["onnxsim"], runs.get("Torch-Pruning"))


def files(exports: Path) -> list[Path]:
    """The files to time that are there."""
    wanted = [exports / exporter / f"{model}.onnx" for exporter in EXPORTERS for model in WANTED]
    return [path for path in wanted if path.exists()]


def table(speeds: list[Speed]) -> str:
    """Processor seconds and ratios, as Markdown."""
    lines = [
        "| model | exporter | onnxprune | from its file | onnxsim | share of onnxsim | wanted | Torch-Pruning |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for speed in speeds:
        torch = f"{speed.torch_pruning.cpu:.0f} s, {speed.faster:.0f} ×" if speed.torch_pruning else ""
        lines.append(
            f"| {speed.model} | {speed.exporter} | {speed.onnxprune.cpu:.3f} s | {speed.from_file.cpu:.3f} s | "
            f"{speed.onnxsim.cpu:.3f} s | {speed.ratio:.2f} | {WANTED[speed.model]} | {torch} |"
        )
    return "\n".join(lines)
