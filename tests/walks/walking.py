"""A tutorial as a reader follows it: its marked blocks, one after the other, in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TUTORIALS = ROOT / "docs" / "tutorials"
_BLOCK = re.compile(r"^<!-- run(?:, exit code (\d))? -->\n```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FENCE = re.compile(r"^```(?:sh|python)\n", re.MULTILINE)
_LONGEST = 900


@dataclass(frozen=True)
class Step:
    """A block of a page: its language, its text, and the exit code that the page promises."""

    language: str
    text: str
    code: int


def steps(page: str) -> Iterator[Step]:
    """The blocks of a page that a reader runs."""
    for code, language, text in _BLOCK.findall(page):
        yield Step(language, text, int(code or 0))


def unmarked(page: str) -> int:
    """Blocks of commands or Python that say neither that they are run nor that they are not."""
    left_out = re.findall(r"^<!-- not run: .+ -->\n```(?:sh|python)\n", page, re.MULTILINE)
    return len(_FENCE.findall(page)) - len(_BLOCK.findall(page)) - len(left_out)


def take(step: Step, folder: Path) -> subprocess.CompletedProcess[str]:
    """Do what a block says, with the onnxprune that is installed beside this Python."""
    tools = folder.parent / "bin"
    tools.mkdir(exist_ok=True)
    for name, words in (("onnxprune", "-m onnxprune"), ("python", "")):
        script = tools / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        script.chmod(0o755)
    path = os.pathsep.join([str(tools), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path, "CLONE": str(ROOT), "COLUMNS": "100", "PYTHONUTF8": "1"}
    shell = ["bash", "-euo", "pipefail", "-c"] if step.language == "sh" else [sys.executable, "-c"]
    return subprocess.run(
        [*shell, step.text], cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=_LONGEST
    )
