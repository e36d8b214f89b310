"""What half of all channels leaves, beside the peers, on every torchvision model that is exported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .racing import Run, WorkerError, worker

LIMIT = 120
"""Seconds of the processor that a tool may take for one model."""
TOOLS = ("onnxprune", "onnxsim", "Torch-Pruning")
MARGIN = 0.005
"""How much more than Torch-Pruning may be left."""


@dataclass(frozen=True)
class Left:
    """For every tool the run on one model, or in words why there is none."""

    model: str
    results: dict[str, Run | str]

    def share(self, tool: str) -> float | None:
        """The share of multiply-accumulates that a tool leaves, or None if it failed."""
        result = self.results[tool]
        return None if isinstance(result, str) else result.left

    @property
    def good_enough(self) -> bool:
        """Whether no more is left than Torch-Pruning leaves, where it works."""
        ours, theirs = self.share("onnxprune"), self.share("Torch-Pruning")
        return ours is not None and (theirs is None or ours <= theirs + MARGIN)


def measure(path: Path) -> Left:
    """Let every tool prune one model once."""
    return Left(path.stem, {tool: _once(tool, path) for tool in TOOLS})


def _once(tool: str, path: Path) -> Run | str:
    try:
        with worker(tool, path, LIMIT) as process:
            return process.run("macs")
    except WorkerError as error:
        return str(error)


def files(exports: Path) -> list[Path]:
    """TorchScript exports of torchvision models."""
    folder = exports / "torchscript"
    return [path for path in sorted(folder.glob("*.onnx")) if not path.name.startswith(("timm_", "backbone_"))]


def table(rows: list[Left]) -> str:
    """Shares left and seconds, as Markdown."""
    head = " | ".join(f"{tool} | s" for tool in TOOLS)
    lines = [f"| model | {head} |", "|---" + "|--:" * (2 * len(TOOLS)) + "|"]
    lines += [f"| {row.model} | " + " | ".join(_cells(row.results[tool]) for tool in TOOLS) + " |" for row in rows]
    for tool in TOOLS:
        shares = [share for row in rows if (share := row.share(tool)) is not None]
        if shares:
            lines.append(f"\n{tool}: {median(shares):.3f} in the median of {len(shares)} of {len(rows)} models.")
    return "\n".join(lines)


def _cells(result: Run | str) -> str:
    return f"{result} |" if isinstance(result, str) else f"{result.left:.3f} | {result.cpu:.2f}"
