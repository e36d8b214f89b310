"""The shapes that are assumed where a model leaves them open."""

from __future__ import annotations

import onnxprune
from tests.helpers import GraphBuilder


def test_open_channels_are_those_that_the_convolution_wants() -> None:
    """A file may leave every dimension open; 224 channels, as for height, would fit no weight."""
    g = GraphBuilder(opset=17)
    g.input("x", ["n", "c", "h", "w"])
    hidden = g.op("Conv", "x", g.weight(8, 3, 1, 1, base="first"), group=2)
    g.output(g.op("Conv", hidden, g.weight(4, 8, 1, 1, base="last")))
    result = onnxprune.compress(g.model(), channels=0.5)
    assert result.analysis.shapes.binding["x"] == (1, 6, 224, 224)
    assert result.certificate
    assert result.plan
