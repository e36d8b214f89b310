"""Samples made of nothing: what they are like, that they are always the same, and that it is said what they are."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import onnxprune
from onnxprune.data.inputs import Fit, inputs_of
from onnxprune.data.samples import Samples, collect
from onnxprune.data.scenes import scene
from onnxprune.data.statistics import channel_statistics
from onnxprune.data.synthetic import Seen, is_synthetic, read_synthetic, seen_in_training
from onnxprune.errors import AnswersError, DataError
from onnxprune.ir.model import Model
from onnxprune.passes.normalize import normalize
from onnxprune.pruning.calibration import sourced
from tests.cli.support import done, done_json, run

MODELS = Path(__file__).parents[2] / "models"
FOLDED = MODELS / "residual_torchscript.onnx"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _model(*, declared: str = "", channels: int = 3, mean: float = 0.3, deviation: float = 0.1) -> Model:
    """A BatchNormalization right behind the input, which saw these pixels, and a classifier."""
    proto = onnx.parser.parse_model(f"""
    <ir_version: 8, opset_import: ["": 17]>
    small (float[N, {channels}, 16, 16] x) => (float[N, 4] y) {{
        a = BatchNormalization(x, scale, shift, mean, variance)
        b = Conv<pads = [1, 1, 1, 1]>(a, w)
        c = Relu(b)
        d = GlobalAveragePool(c)
        e = Flatten(d)
        y = MatMul(e, v)
    }}""")
    rng = np.random.default_rng(0)
    arrays = {
        "scale": np.ones(channels),
        "shift": np.zeros(channels),
        "mean": np.full(channels, mean),
        "variance": np.full(channels, deviation**2),
        "w": rng.standard_normal((8, channels, 3, 3)),
        "v": rng.standard_normal((8, 4)),
    }
    for name, array in arrays.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    if declared:
        helper.set_model_props(proto, {"Image.NominalPixelRange": declared})
    return normalize(onnxprune.load(proto))


def test_scenes_are_pictures_of_falling_spectra() -> None:
    images = np.stack([scene((32, 48), 3, np.random.default_rng((0, i))) for i in range(24)])
    again = np.stack([scene((32, 48), 3, np.random.default_rng((0, i))) for i in range(24)])
    assert np.array_equal(images, again)
    assert images.shape == (24, 3, 32, 48)
    assert images.min() >= 0
    assert images.max() <= 1
    power = np.square(np.abs(np.fft.fft(images - images.mean(axis=3, keepdims=True), axis=3))).mean(axis=(0, 1, 2))
    assert power[1] > 10 * power[8] > 10 * power[20]
    assert len({round(float(image.mean()), 4) for image in images}) == 24


@pytest.mark.parametrize(
    ("mean", "deviation", "told", "low", "high"),
    [(0.45, 0.2, "from 0 to 1", 0, 1), (0.0, 0.5, "from -1 to 1", -1, 1), (115, 50, "from 0 to 255", 0, 255)],
)
def test_the_range_is_what_the_first_normalisation_knows(
    tmp_path: Path, mean: float, deviation: float, told: str, low: float, high: float
) -> None:
    data = read_synthetic("synthetic:24", _model(channels=1, mean=mean, deviation=deviation), None, tmp_path)
    assert told in data.made
    x = collect(data, _model(channels=1), 24).inputs["x"]
    assert low - 1e-4 <= x.min() < low + 0.3 * (high - low)
    assert high + 1e-4 >= x.max() > high - 0.3 * (high - low)


def test_what_the_file_or_the_spec_says_goes_before_guesses(tmp_path: Path) -> None:
    declared = read_synthetic("synthetic:4", _model(declared="Normalized_1_1"), None, tmp_path)
    assert "from -1 to 1" in declared.made
    said = read_synthetic("synthetic:4?mean=0.5&std=0.1", _model(), None, tmp_path)
    assert "values" not in said.made
    assert collect(said, _model(), 4).inputs["x"].max() > 3
    guess = read_synthetic("synthetic:4", normalize(onnxprune.load(FOLDED)), None, tmp_path)
    assert "a guess" in guess.made


def test_statistics_are_matched_once_and_kept(cache: Path) -> None:
    pytest.importorskip("torch")
    model = _model(mean=0.35, deviation=0.12)
    first = collect(sourced("synthetic:16", model), model, 16)
    assert "statistics of 1 BatchNormalizations" in first.made
    noise = collect(read_synthetic("synthetic:16", model, None, cache), model, 16)
    off = []
    for samples in (noise, first):
        found = channel_statistics(model, samples, {"x": 1})["x"]
        off.append(abs(found.mean - 0.35).mean() + abs(np.sqrt(found.variance) - 0.12).mean())
    assert off[1] < 0.5 * off[0]

    def none(model: Model, images: np.ndarray, how: Fit, seen: tuple[Seen, ...], seed: int) -> np.ndarray:
        raise AssertionError("matched twice")

    again = collect(read_synthetic("synthetic:16", model, none, cache), model, 16)
    assert np.array_equal(first.inputs["x"], again.inputs["x"])
    (kept,) = (cache / "synthetic").iterdir()
    kept.write_bytes(b"damaged")
    with pytest.raises(AssertionError, match="matched twice"):
        read_synthetic("synthetic:16", model, none, cache)


def test_without_torch_there_is_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxprune.torch.synthesis", None)
    assert "noise with structure" in collect(sourced("synthetic:4", _model()), _model(), 4).made


def test_what_is_no_image_is_made_too(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["": 17]>
    small (int64[N, 6] ids, int64[N, 6] mask, float[N, 5] z) => (float[N, 6, 2] y, float[N, 5] u, int64[N, 6] m)
    <float[9, 2] table = {0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}> {
        y = Gather(table, ids)
        u = Relu(z)
        m = Identity(mask)
    }""")
    model = normalize(onnxprune.load(proto))
    found = collect(read_synthetic("synthetic:20", model, None, tmp_path), model, 20).inputs
    assert (found["mask"] == 1).all()
    assert found["ids"].max() == 8
    assert found["z"].std() > 0.5


def test_problems_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model()
    assert not is_synthetic("synthetic.npz")
    for spec, message in (("synthetic:0", "at least 1"), ("synthetic?limit=3", "as many as asked for")):
        with pytest.raises(DataError, match=message):
            read_synthetic(spec, model, None, tmp_path)
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> m (float[N, M] x) => (float[N, M] y) { y = Relu(x) }'
    )
    with pytest.raises(DataError, match="open extents"):
        read_synthetic("synthetic", onnxprune.load(proto), None, tmp_path)
    with pytest.raises(DataError, match="serve calibration"):
        onnxprune.data.read_data("synthetic:5", inputs_of(model))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "synthetic").mkdir()
    with pytest.raises(DataError, match=r"write \./synthetic"):
        read_synthetic("synthetic", model, None, tmp_path)


def test_a_normalisation_that_was_never_trained_has_seen_nothing() -> None:
    assert len(seen_in_training(_model())) == 1
    assert not seen_in_training(_model(mean=0.0, deviation=1.0))


def test_reports_say_that_samples_are_synthetic(tmp_path: Path) -> None:
    common = ("prune", FOLDED, "--reduce", 0.3, "--calibrate", "synthetic:48", "--no-bench")
    text = " ".join(done(*common, "-o", tmp_path / "a.onnx").split())
    assert "other synthetic samples" in text
    assert "fidelity on them is no evidence about real data" in text
    told = done_json(*common, "-o", tmp_path / "b.onnx")["fidelity"]
    assert told["made"].startswith("noise with structure")
    refused = run(*common, "-o", tmp_path / "c.onnx", "--min-agreement", 0.1)
    assert "takes real samples" in " ".join(refused.stderr.split())
    assert not (tmp_path / "c.onnx").exists()
    model = onnxprune.load(FOLDED)
    made = onnxprune.compress(model, reduce=0.3, calibration="synthetic:16", certify=False)
    assert "no evidence about real data" in repr(made)
    with pytest.raises(AnswersError, match="real samples"):
        onnxprune.compress(model, reduce=0.3, calibration="synthetic:16", certify=False, min_agreement=0.1)


def test_analyze_says_what_statistics_there_are(tmp_path: Path) -> None:
    onnx.save(_model().proto, tmp_path / "m.onnx")
    assert "Batch normalisation statistics: 1 layer; synthetic calibration possible" in " ".join(
        done("analyze", tmp_path / "m.onnx").split()
    )
    assert done_json("analyze", FOLDED)["normalisation_statistics"] == len(
        seen_in_training(normalize(onnxprune.load(FOLDED)))
    )
    samples = Samples({"x": np.zeros((3, 2), np.float32)}, None, 1, made="nothing")
    assert samples.part(0, 2).made == "nothing"
