"""Regions of real networks give way, a few of each at random, layers of low rank among them: is all of it certified?

    python -m tests.benchmarks.regions MODEL.onnx...

A line per model: its nodes, its regions, what stands for those that were chosen, and what the certificate says.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import onnxprune
from onnxprune.errors import OnnxPruneError
from onnxprune.ir.graph import Graph
from onnxprune.ir.regions import Regions
from onnxprune.pruning.regions.candidates import MOST_LAYERS
from tests.random_graphs.test_random_regions import random_plan

CHOSEN = 6


def main() -> None:
    """Try every model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    for path in parser.parse_args().models:
        begin = time.process_time()
        try:
            analysis = onnxprune.analyze(path)
            layers = [layer.node for layer in analysis.costs.layers]
            count = len(list(Regions(analysis.model.derived(Graph)).find(layers, MOST_LAYERS)))
            plan = random_plan(analysis.model, 0, CHOSEN)
            found = onnxprune.verify(analysis.model, onnxprune.apply(analysis.model, plan), plan)
            kinds = ", ".join(str(one.kind) for one in plan.replaced)
            told = f"{count} regions; {kinds}: {found.sentences[0]}"
        except OnnxPruneError as error:
            told = f"{type(error).__name__}: {error}"
        print(f"{path.name}: {told} ({time.process_time() - begin:.1f} s)", flush=True)


if __name__ == "__main__":
    main()
