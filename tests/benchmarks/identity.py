"""Whether two versions of the library make the same plans and the same files, byte for byte.

    python -m tests.benchmarks.identity --before PYTHON --after PYTHON FILE …

Each PYTHON has one version installed. Every file is analysed and pruned in a process of its own under each of them,
with options that together take every value of ``OPTIONS`` (a sample of their product, another for each file).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from itertools import product
from pathlib import Path

OPTIONS = {
    "mode": ("params", "flops", "memory"),
    "allocation": ("complexity", "complexity-mean", "uniform", "global"),
    "criterion": ("l2", "l1", "fpgm", "lamp", "random"),
    "grouped": ("aligned", "balanced", "whole", "best"),
    "seed": (0, 1),
}
_WORKER = """
import hashlib, json, sys, tempfile
from pathlib import Path
import onnxprune

path, shapes, cases = json.loads(sys.stdin.read())
analysis = onnxprune.analyze(path, {k: tuple(v) for k, v in shapes.items()} or None)
found = {"analysis": [[l.name, l.op_type, l.channels, l.params, l.flops, l.memory] for l in analysis.layers]}
with tempfile.TemporaryDirectory() as folder:
    for case in cases:
        try:
            plan = onnxprune.plan(analysis, reduce=0.4, round_to=1, **case)
            plan.save(Path(folder) / "plan.json")
            onnxprune.apply(analysis.model, plan).save(Path(folder) / "out.onnx")
            files = [Path(folder) / name for name in ("plan.json", "out.onnx")]
            made = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
            (Path(folder) / "out.onnx").unlink()
        except onnxprune.OnnxPruneError as error:
            made = [type(error).__name__]
        found[json.dumps(case, sort_keys=True)] = made
print(json.dumps(found))
"""


def cases(name: str, count: int) -> list[dict[str, object]]:
    """So many combinations, which follow from the name; seven of them take every value."""
    everything = [dict(zip(OPTIONS, values, strict=True)) for values in product(*OPTIONS.values())]
    start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    # A stride without common divisors with the number of values goes through all of every option.
    return [everything[(start + 103 * at) % len(everything)] for at in range(count)]


def made(python: str, path: Path, shapes: dict[str, list[int]], count: int) -> dict[str, object]:
    """What one version makes of a file, by options."""
    given = json.dumps([str(path.resolve()), shapes, cases(path.name, count)])
    result = subprocess.run([python, "-c", _WORKER], input=given, capture_output=True, encoding="utf-8", check=False)
    if result.returncode:
        return {"failed": result.stderr.strip().splitlines()[-1:]}
    found: dict[str, object] = json.loads(result.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Compare, file by file; 1 if any differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--before", required=True, help="interpreter with the one version")
    parser.add_argument("--after", required=True, help="interpreter with the other")
    parser.add_argument("--cases", type=int, default=8, help="combinations of options per file")
    parser.add_argument("--shapes", type=Path, help="JSON of input shapes by the file's stem")
    options = parser.parse_args()
    shapes = json.loads(options.shapes.read_text()) if options.shapes else {}
    total, differing = 0, []
    for path in options.files:
        both = [
            made(python, path, shapes.get(path.stem, {}), options.cases) for python in (options.before, options.after)
        ]
        total += len(both[1])
        differing += [
            (path.stem, case, both[0].get(case), found) for case, found in both[1].items() if both[0].get(case) != found
        ]
        print(f"{path.stem}: {len(both[1])} compared, {len(differing)} of {total} differ so far", flush=True)
    for stem, case, before, after in differing:
        print(f"{stem} {case}: {str(before)[:80]} before, {str(after)[:80]} after")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
