"""GroupNormalization: groups stay, each with equally many channels."""

from __future__ import annotations

import pytest

from tests.helpers import GraphBuilder
from tests.ops.certifying import certify_often, conv

COVERS = frozenset({("", "GroupNormalization")})


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
@pytest.mark.parametrize("opset", [21, 23])
def test_group_normalization(opset: int, groups: int) -> None:
    g = GraphBuilder(opset)
    h = conv(g, g.input("x", (2, 3, 5, 5)), 3, 8)
    y = g.op("GroupNormalization", h, g.vector(8, positive=True), g.vector(8), num_groups=groups)
    g.output(conv(g, y, 8, 3), [2, 3, 5, 5])
    result = certify_often(g.model(), prunable=[(g.nodes[0].input[1], 0)])
    approximate = {group.approximate for group in result.analysis.groups}
    assert (approximate == {None}) == (groups == 8)
