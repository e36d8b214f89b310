"""Groups of a convolution are joined, with zeros between."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.passes.merge_groups import MergeGroups


@pytest.mark.parametrize(
    ("groups", "channels", "most", "left"), [(4, 2, 64, 1), (4, 2, 4, 2), (6, 2, 5, 3), (2, 2, 2, 2), (4, 1, 64, 4)]
)
def test_as_many_as_fit(build, apply, groups: int, channels: int, most: int, left: int) -> None:
    width = groups * channels
    weight = np.random.default_rng(0).standard_normal((2 * groups, channels, 3, 3)).astype(np.float32)
    model = build(
        f"""g (float[1, {width}, 5, 5] x) => (float[1, {2 * groups}, 3, 3] y) {{
            y = Conv <group = {groups}> (x, w)
        }}""",
        weights={"w": weight},
    )
    if left == groups:
        assert MergeGroups(most).run(model).model is model
        return
    node = apply(MergeGroups(most), model).graph.node[0]
    assert next(a.i for a in node.attribute if a.name == "group") == left


def test_a_weight_that_others_read_stays(build, apply) -> None:
    weight = np.random.default_rng(0).standard_normal((4, 2, 3, 3)).astype(np.float32)
    model = build(
        """g (float[1, 4, 5, 5] x) => (float[4, 2, 3, 3] z, float[1, 4, 3, 3] y) {
            y = Conv <group = 2> (x, w)  z = Relu (w)
        }""",
        weights={"w": weight},
    )
    after = apply(MergeGroups(), model)
    np.testing.assert_array_equal(after.weights["w"].array, weight)
