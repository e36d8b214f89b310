"""Outputs are compared by what they say: vectors are no classes, however much they look like scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("torch")

import torch

import onnxprune
from onnxprune.cli.recovering import figures
from onnxprune.data.samples import Samples
from onnxprune.errors import UsageError
from onnxprune.ir.model import Model
from onnxprune.torch.recovery.likeness import Likeness, divergence, doubt, likenesses, relative, turned


def _model(ending: str = "Identity(raw)", width: int = 24) -> Model:
    """Two layers behind each other on vectors of 16; ``ending`` makes the output of ``raw``."""
    proto = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": 17]>
        small (float[N, 16] x) => (float[N, {width}] y) {{
            a = MatMul(x, first)
            b = Relu(a)
            raw = MatMul(b, second)
            y = {ending}
        }}
    """)
    rng = np.random.default_rng(0)
    for name, extents in {"first": (16, 48), "second": (48, width)}.items():
        weight = rng.standard_normal(extents).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    return onnxprune.load(proto)


@pytest.fixture(scope="module")
def samples() -> Samples:
    x = np.random.default_rng(1).standard_normal((96, 16)).astype(np.float32)
    return Samples({"x": x}, None, 16)


UNIT = "LpNormalization<axis = 1>(raw)"


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        (_model(UNIT), Likeness("cosine", -1)),
        (_model("Softmax<axis = 1>(raw)"), Likeness("KL", 1, "Softmax")),
        (_model(), Likeness("KL", 1)),  # far apart, as scores are
        (_model("Sigmoid(raw)"), Likeness(ending="Sigmoid")),
        (_model(width=1), Likeness()),
    ],
)
def test_what_outputs_say_decides_how_they_are_compared(model: Model, wanted: Likeness, samples: Samples) -> None:
    assert likenesses(model, samples, ["y"]) == {"y": wanted}


def test_a_task_that_is_named_wins(samples: Samples) -> None:
    assert likenesses(_model(), samples, ["y"], "embeddings") == {"y": Likeness("cosine", -1)}
    assert likenesses(_model(UNIT), samples, ["y"], "classes") == {"y": Likeness("KL", 1)}
    with pytest.raises(UsageError, match="reads none"):
        likenesses(_model(), samples, ["y"], "text")


def test_embeddings_are_taught_by_direction(samples: Samples) -> None:
    """A softmax over the parts of a unit vector is nearly flat: its divergence would say that all is well."""
    model = _model(UNIT)
    made = onnxprune.compress(model, reduce=0.5, calibration=samples, round_to=1, compensate="none", certify=False)
    done = onnxprune.recover(made.model, model, samples, steps=120, lr=1e-2, plan=made.plan)
    first, last = done.states[0], done.states[done.kept]
    assert first.measure == "cosine"
    assert first.agreement is None
    assert last.damage < 0.7 * first.damage
    assert figures(last) == f"cosine {1 - last.damage:.4f}"
    outputs = [_answers(m, samples.part(82, 96)) for m in (model, made.model, done.model)]
    cosines = [float((outputs[0] * other).sum(axis=1).mean()) for other in outputs[1:]]
    assert cosines[1] > cosines[0]
    # What it was compared by before hardly sees the difference that the cosine sees.
    pair = [torch.from_numpy(x) for x in outputs[:2]]
    assert float(divergence(*pair)) < 0.2 * float(turned(*pair))


def _answers(model: Model, samples: Samples) -> Any:
    from onnxprune.data.fidelity import outputs_of

    return outputs_of(model, samples, "it")["y"]


def test_measures_are_zero_where_nothing_differs_and_grow() -> None:
    rng = torch.Generator().manual_seed(0)
    target = 3 * torch.randn((8, 5), generator=rng)
    for measure in (divergence, turned, doubt, relative):
        nothing, little, much = (float(measure(target + s * torch.ones(5).cumsum(0), target)) for s in (0, 0.1, 1))
        assert abs(nothing) < 1e-5
        assert 0 < little < much
    for one in (Likeness("KL"), Likeness("cosine", -1), Likeness(), Likeness(ending="Sigmoid")):
        assert float(one.loss(target + 1, target)) >= float(one.damage(target + 1, target)) >= -1e-6
