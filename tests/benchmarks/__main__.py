"""Run one study or all, print its table and write it to docs/benchmarks.md."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from . import end_to_end, macs, report, speed

_T = TypeVar("_T")


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
    parser.add_argument("--repeat", type=int, default=7, help="runs that medians are taken of")
    parser.add_argument("--print-only", action="store_true", help="leave the page as it is")
    options = parser.parse_args()
    if options.exports is None or not options.exports.is_dir():
        parser.error("give the folder of exported models by --exports or ONNXPRUNE_ZOO_EXPORTS")
    unknown = set(options.studies) - set(_STUDIES)
    if unknown:
        parser.error(f"no study is called {', '.join(sorted(unknown))}")
    for name in options.studies or _STUDIES:
        table = _STUDIES[name](options.exports, options.repeat)
        print(f"\n{table}\n", flush=True)
        if not options.print_only:
            report.update(name, table)


def _speed(exports: Path, repeat: int) -> str:
    return speed.table([_told(speed.measure(path, repeat)) for path in speed.files(exports)])


def _end_to_end(exports: Path, repeat: int) -> str:
    return end_to_end.table([_told(end_to_end.measure(path, repeat)) for path in speed.files(exports)])


def _macs(exports: Path, repeat: int) -> str:
    return macs.table([_told(macs.measure(path)) for path in macs.files(exports)])


def _told(result: _T) -> _T:
    print(result, flush=True)
    return result


_STUDIES: dict[str, Callable[[Path, int], str]] = {"speed": _speed, "end-to-end": _end_to_end, "macs": _macs}

if __name__ == "__main__":
    main()
