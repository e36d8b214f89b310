"""Random networks lose random atoms: valid, running, certified, nothing empty, and what was to go is gone.

200 networks by default, always the same ones. ``ONNXPRUNE_RANDOM_GRAPHS=20000`` asks for that many new ones.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, given, settings

from tests.random_graphs.strategy import RandomGraph, build, prune, random_graphs

_EXAMPLES = os.environ.get("ONNXPRUNE_RANDOM_GRAPHS")


@settings(
    max_examples=int(_EXAMPLES or 200),
    derandomize=_EXAMPLES is None,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
@given(graph=random_graphs())
def test_random_graph_loses_random_atoms(graph: RandomGraph) -> None:
    """Everything that pruning promises, on networks that nobody designed."""
    prune(graph)


def test_random_graphs_have_something_to_prune() -> None:
    """The test above is worth something: most networks lose channels, and some lose them from several groups."""
    pruned = [prune(build(seed, 10), 0.5) for seed in range(40)]
    assert sum(bool(p.plan) for p in pruned) >= 20
    assert max(len(p.analysis.coupling.groups) for p in pruned) >= 4
