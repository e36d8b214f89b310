"""Writes what the README's examples print into the README: ``python docs/readme_outputs.py``.

A block of output follows a comment that says what printed it. tests/test_docs.py checks that the blocks are up to date.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
_WIDTH = "100"
_END = "Compensation"
"""What begins the part of a long output that is shown."""


def readme(page: str) -> str:
    """The page with all blocks of output as the examples print them now."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "models", folder / "models")
        started = _run(_command(_block(page, "quick start: run")), folder)
        page = _with_output(page, "output of the command above", started)
        calibrated = _run(_command(_block(page, "with calibration data: run")), folder)
        page = _with_output(page, "end of the output of the command above", calibrated[calibrated.index(_END) :])
        return _with_output(page, "output of the Python above", _run([sys.executable, "-c", _python(page)], folder))


def _command(block: str) -> list[str]:
    """The last step of a block, with the command installed beside this Python."""
    program, *arguments = shlex.split(block.split(" && ")[-1])
    return [sys.executable, "-m", Path(program).name, *arguments]


def _python(page: str) -> str:
    """The only Python example."""
    (example,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return str(example)


def _block(page: str, marker: str) -> str:
    match = re.search(rf"^<!-- {marker} -->\n```\w+\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    if match is None:
        raise SystemExit(f"README.md lacks a block after <!-- {marker} -->")
    return match.group(1)


def _with_output(page: str, marker: str, output: str) -> str:
    _block(page, marker)  # ends the script where the block is missing
    pattern = rf"(^<!-- {marker} -->\n```text\n).*?(^```$)"
    return re.sub(pattern, lambda match: match[1] + output + match[2], page, flags=re.MULTILINE | re.DOTALL)


def _run(command: list[str], folder: Path) -> str:
    environment = {**os.environ, "COLUMNS": _WIDTH, "PYTHONUTF8": "1", "NO_COLOR": "1"}
    result = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", env=environment)
    if result.returncode:
        raise SystemExit(f"{shlex.join(command)} failed:\n{result.stderr}")
    return "\n".join(line.rstrip() for line in result.stdout.rstrip().splitlines()) + "\n"


if __name__ == "__main__":
    README.write_text(readme(README.read_text(encoding="utf-8")), encoding="utf-8")
