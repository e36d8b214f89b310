"""The page of results: every study writes its own section, the others stay."""

from __future__ import annotations

import platform
import re
from importlib.metadata import version
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"

_HEAD = """# Benchmarks

Written by `python -m tests.benchmarks` (see `tests/benchmarks`); do not edit by hand. Half of all channels is
removed throughout (`channels=0.5`; the peers call it ratio or sparsity), by the l2 norm, with one thread. FLOPs
are MACs (multiply-accumulates).
"""
_INTRODUCTIONS = {
    "speed": """## Speed

Analysis, plan and shrink in memory: no file is written and nothing verified. Each tool runs in a process of its
own, they take turns, and the medians are of the processor's time (with one thread that is the clock's on a quiet
machine). "From its file" includes opening the file. onnxsim 0.8.1 runs `apply_structured_pruning(model, 0.5)`,
Torch-Pruning 1.6.1 `BasePruner(...).step()` on the live module. BatchNorm statistics and weights are random.
""",
    "end-to-end": """## From file to file

`onnxprune prune MODEL -o OUT --channels 0.5 --no-verify`, start of Python included, beside `onnx.load` and
`onnx.save` of the same file in a Python that runs already. Seconds by the clock. Peak memory is the resident
set, shared libraries and mapped parts of the file included.
""",
    "macs": """## What is left

Share of the multiply-accumulates in the TorchScript exports of torchvision's models, and seconds of the
processor. Each tool's result is counted by a counter of its own world (onnxprune's analysis, onnx's shape
inference, PyTorch's FlopCounterMode). Each had two minutes of the processor, and Torch-Pruning 12 GB.
""",
}


def update(section: str, table: str, page: Path = PAGE) -> None:
    """Put a new table into its section of the page."""
    text = page.read_text() if page.exists() else _HEAD
    setting = f"Python {platform.python_version()}, onnx {version('onnx')}, numpy {version('numpy')}, {_processor()}."
    body = f"<!-- {section} -->\n{_INTRODUCTIONS[section]}\n{table}\n\n{setting}\n<!-- end of {section} -->"
    pattern = re.compile(rf"<!-- {section} -->.*?<!-- end of {section} -->", re.DOTALL)
    text = pattern.sub(lambda _: body, text) if pattern.search(text) else f"{text.rstrip()}\n\n{body}\n"
    page.parent.mkdir(exist_ok=True)
    page.write_text(text)


def _processor() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.machine()
