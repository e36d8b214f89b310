"""Writes what the commands of the tutorials print into them: ``python docs/tutorial_outputs.py [NAME...]``.

Runs the tutorials as tests/walks does. A block of output follows the block that printed it.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from tests.walks.walking import TUTORIALS, steps, take  # noqa: E402

_LAST = 12
"""Lines of an output of which the end is shown."""


def main(names: list[str]) -> None:
    """Run these tutorials, or all, and write what they print."""
    for path in sorted(TUTORIALS.glob("*.md")):
        if not names or path.stem in names:
            path.write_text(_with_outputs(path.read_text(encoding="utf-8")), encoding="utf-8")


def _with_outputs(page: str) -> str:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "empty"
        folder.mkdir()
        for step in steps(page):
            done = take(step, folder)
            if done.returncode != step.code:
                raise SystemExit(f"{step.text}\n{done.stdout}\n{done.stderr}")
            pattern = re.compile(
                re.escape(step.text) + r"```\n\n<!-- (end of the )?output of the \w+ above -->\n```text\n(.*?)^```$",
                re.MULTILINE | re.DOTALL,
            )
            found = pattern.search(page)
            if found is not None:
                lines = [line.rstrip() for line in done.stdout.rstrip().splitlines()]
                text = "\n".join(lines[-_LAST:] if found[1] else lines)
                page = page[: found.start(2)] + text + "\n" + page[found.end(2) :]
    return page


if __name__ == "__main__":
    main(sys.argv[1:])
