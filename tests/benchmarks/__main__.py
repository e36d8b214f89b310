"""Run one study or all, print its table and write it to docs/benchmarks.md."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import end_to_end, macs, report, speed

_STUDIES: dict[str, tuple[Callable[[Path], list[Path]], Callable[[Path, int], Any], Callable[[list[Any]], str]]] = {
    "speed": (speed.files, speed.measure, speed.table),
    "end-to-end": (speed.files, end_to_end.measure, end_to_end.table),
    "macs": (macs.files, lambda path, _: macs.measure(path), macs.table),
}
"""The files of every study, how one is measured (so often), and how the results are shown."""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"of {', '.join(_STUDIES)}; all by default")
    parser.add_argument(
        "--exports",
        type=Path,
        default=os.environ.get("ONNXPRUNE_ZOO_EXPORTS"),
        help="folder with torchscript/NAME.onnx and dynamo/NAME.onnx as tests/zoo/export_zoo.py writes them; "
        "ONNXPRUNE_ZOO_EXPORTS by default",
    )
    parser.add_argument("--only", nargs="+", metavar="MODEL", help="names of the models to take; all by default")
    parser.add_argument("--repeat", type=int, default=7, help="runs that medians are taken of")
    parser.add_argument("--print-only", action="store_true", help="leave the page as it is")
    options = parser.parse_args()
    if options.exports is None or not options.exports.is_dir():
        parser.error("give the folder of exported models by --exports or ONNXPRUNE_ZOO_EXPORTS")
    unknown = set(options.studies) - set(_STUDIES)
    if unknown:
        parser.error(f"no study is called {', '.join(sorted(unknown))}")
    for name in options.studies or _STUDIES:
        files, measure, table_of = _STUDIES[name]
        results = []
        for path in files(options.exports):
            if not options.only or path.stem in options.only:
                results.append(measure(path, options.repeat))
                print(results[-1], flush=True)
        table = table_of(results)
        print(f"\n{table}\n", flush=True)
        if not options.print_only:
            report.update(name, table)


if __name__ == "__main__":
    main()
