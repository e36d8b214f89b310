"""What happens when half of all channels of one model go: the figures of one row of the zoo's table.

    python -m tests.zoo.measuring MODEL        # a path, or package:NAME for a model of tests.zoo.sources

prints the row as JSON. The study runs this in a process of its own per model, so that neither a crash nor the
memory of one model touches the others.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import onnx

import onnxprune
from onnxprune.analysis.prunability import summarize

from .independent import weights_that_differ
from .sources import input_shapes, load

PACKAGE = "package"
"""Stands in the place of the exporter for models that packages ship."""

SHARE = 0.5
"""Of the channels of every group, what goes."""

REASONS = 3
"""So many reasons why channels stay are told, the heaviest."""


@dataclass(frozen=True)
class Row:
    """One model in the zoo.

    ``params`` and ``flops`` are totals (elements, multiply-accumulates at batch 1), ``prunable`` the share of the
    latter in filters that may go, ``left`` what is left of them without half of all channels. ``seconds`` are processor
    time of analyze + plan + apply, ``difference`` is the certificate's. ``error`` is empty where all went well.
    """

    origin: str
    model: str
    opset: int = 0
    nodes: int = 0
    params: int = 0
    flops: int = 0
    prunable: float = math.nan
    left: float = math.nan
    seconds: float = math.nan
    approximate: bool = False
    difference: float = math.nan
    unknown: str = ""
    stays: str = ""
    error: str = ""


def identity(source: str) -> tuple[str, str]:
    """Origin and name of a model given as a path or as package:NAME."""
    origin, _, name = source.partition(":")
    return (PACKAGE, name) if origin == PACKAGE else (Path(source).parent.name, Path(source).stem)


def measure(source: str) -> Row:
    """Analyse, prune and certify one model; a failure of any step ends in the row's ``error``."""
    row, stage, start = Row(*identity(source)), "load", time.process_time()
    try:
        shapes = input_shapes(row.model) if row.origin == PACKAGE else None
        model = onnxprune.load(load(row.model) if row.origin == PACKAGE else source)
        row = replace(row, opset=_opset(model), nodes=len(model.graph.node))
        stage, start = "analyze", time.process_time()
        analysis = onnxprune.analyze(model, shapes)
        stage = "plan"
        plan = onnxprune.plan(analysis, channels=SHARE)
        stage = "apply"
        pruned = onnxprune.apply(model, plan)
        row = replace(row, seconds=time.process_time() - start)
        stage = "summarize"
        row = _described(row, analysis, plan)
        stage = "verify"
        certificate = onnxprune.verify(model, pruned, plan, input_shapes=shapes)
        row = replace(row, approximate=certificate.approximate, difference=certificate.max_relative)
        if not certificate.passed:
            return replace(row, error=f"certificate: {certificate.max_relative:.1e} > {certificate.tolerance:.0e}")
        stage = "weights"
        differing = weights_that_differ(analysis.model.to_proto(), plan.removed, pruned.to_proto())
        return replace(row, error=f"weights differ: {', '.join(differing[:3])}" if differing else "")
    except onnxprune.BudgetError as error:  # nothing can go, and the message says why
        return replace(row, prunable=0.0, left=1.0, seconds=time.process_time() - start, stays=_first_line(error))
    except Exception as error:  # any failure at all is a finding
        return replace(row, error=f"{stage}: {type(error).__name__}: {_first_line(error)}")


def _described(row: Row, analysis: onnxprune.Analysis, plan: onnxprune.Plan) -> Row:
    summary = summarize(analysis)
    reasons = [f"{pinned.reason} ({pinned.share:.0%})" for pinned in summary.pinned[:REASONS] if pinned.share >= 0.005]
    unknown = dict.fromkeys(str(node).split(" ")[0] + f": {reason}" for node, reason in analysis.unknown.items())
    return replace(
        row,
        params=int(analysis.totals["params"]),
        flops=int(analysis.totals["flops"]),
        prunable=summary.prunable,
        left=plan.after["flops"] / plan.before["flops"] if plan.before["flops"] else 1.0,
        unknown="; ".join(list(unknown)[:REASONS]),
        stays="; ".join(reasons),
    )


def _opset(model: onnxprune.Model) -> int:
    proto: onnx.ModelProto = model.proto
    return max((item.version for item in proto.opset_import if item.domain in ("", "ai.onnx")), default=0)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else ""


def main() -> int:
    """Print the row of the model that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("model", help="a path, or package:NAME")
    print(json.dumps(asdict(measure(parser.parse_args().model))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
