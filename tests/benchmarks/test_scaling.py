"""Analysis time grows linearly with the graph; needs no other files, but a quiet machine."""

from __future__ import annotations

import pytest

from . import scaling


@pytest.mark.benchmark
@pytest.mark.parametrize("network", scaling.NETWORKS)
def test_time_grows_linearly(network: str) -> None:
    scaling.measure(network, scaling.SIZES[0])
    runs = [scaling.measure(network, nodes) for nodes in scaling.SIZES if nodes >= scaling.SMALLEST]
    page = scaling.table({network: runs})
    assert runs[-1].total <= scaling.WANTED_SECONDS, page
    assert scaling.slope(runs) <= scaling.WANTED_SLOPE, page
