"""The refit criterion counts errors on samples that the fit has not seen."""

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.data.statistics import ChannelStatistics
from onnxprune.pruning.criteria import reconstruction
from onnxprune.pruning.criteria.reconstruction import _Input, _Refit
from onnxprune.pruning.options import PlanOptions


@pytest.mark.parametrize("rows", [60, 200, 2000])
def test_expected_errors_are_those_on_fresh_samples(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of 40 correlated channels go; the fit to ``rows`` of them is tried on 4000 others."""
    monkeypatch.setattr(reconstruction, "_INDEPENDENT", 1.0)
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((40, 40)) * np.geomspace(1, 0.05, 40)[:, None]
    x, fresh = rng.standard_normal((rows, 40)) @ mix, rng.standard_normal((4000, 40)) @ mix
    weights = rng.standard_normal((40, 3))
    covariance = np.cov(x.T, bias=True)
    statistics = ChannelStatistics(rows, x.mean(axis=0), np.abs(x).mean(axis=0), x.var(axis=0), covariance)
    refit = _Refit.of(_Input(np.arange(40), statistics, weights @ weights.T), np.arange(40))
    gone = np.arange(0, 40, 2)
    expected = refit.remove(gone)

    kept = np.setdiff1d(np.arange(40), gone)
    inner = covariance[np.ix_(kept, kept)] + refit.ridge * np.eye(20)
    change = np.linalg.solve(inner, covariance[np.ix_(kept, gone)] @ weights[gone])
    about = fresh - x.mean(axis=0)
    real = np.square(about[:, gone] @ weights[gone] - about[:, kept] @ change).sum(axis=1).mean()
    # The criterion counts what the ridge keeps the weights from, too.
    assert expected == pytest.approx(real + refit.ridge * np.square(change).sum(), rel=0.25)
    in_sample = np.square((x - x.mean(axis=0))[:, gone] @ weights[gone] - (x - x.mean(axis=0))[:, kept] @ change)
    if rows == 60:
        assert in_sample.sum(axis=1).mean() < 0.75 * real  # what is compared would flatter, uncorrected


def test_a_pooled_layer_that_few_samples_over_fit_is_not_free() -> None:
    """48 independent channels, pooled, on 32 samples: any 31 explain the rest there, and nothing elsewhere."""
    model = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["": 17]>
    small (float[N, 48, 1, 1] x) => (float[N, 10] y) {
        a = Conv(x, first)
        b = Relu(a)
        p = GlobalAveragePool(b)
        f = Flatten(p)
        y = MatMul(f, last)
    }
    """)
    rng = np.random.default_rng(0)
    for name, shape in {"first": (48, 48, 1, 1), "last": (48, 10)}.items():
        array = rng.standard_normal(shape).astype(np.float32)
        array = np.eye(48, dtype=np.float32).reshape(shape) if name == "first" else array
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    analysis = onnxprune.analyze(model)
    samples = {"x": rng.standard_normal((32, 48, 1, 1)).astype(np.float32)}
    from onnxprune.data.samples import collect
    from onnxprune.pruning.criteria import Scoring, default_registry

    scoring = Scoring(analysis, rng, collect(samples, analysis.model, 32))
    group = analysis.coupling.groups[0]
    refitted, plain = (
        np.sort(default_registry().find(name).scores(scoring)[group.atoms]) for name in ("refit", "reconstruction")
    )
    # Half of the channels lost costs about what it does without a refit.
    assert refitted[:24].sum() > 0.5 * plain[:24].sum()


def test_with_data_channels_compete_by_what_a_refit_cannot_make_good() -> None:
    decided = PlanOptions(reduce=0.3, calibration={"x": np.zeros((1, 1))}).decided()
    assert (decided.allocation, decided.criterion) == ("global", "refit")
    decided = PlanOptions(reduce=0.3).decided()
    assert (decided.allocation, decided.criterion) == ("complexity", "l2")
    decided = PlanOptions(reduce=0.3, criterion="l1", calibration={"x": np.zeros((1, 1))}).decided()
    assert (decided.allocation, decided.criterion) == ("complexity", "l1")
    decided = PlanOptions(reduce=0.3, allocation="uniform").decided()
    assert (decided.allocation, decided.criterion) == ("uniform", "l2")
