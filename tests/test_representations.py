"""What a REPL shows of results: a few lines, whatever they hold."""

from __future__ import annotations

import numpy as np
import pytest

import onnxprune
from onnxprune.analysis.explain import explain
from tests.cli.support import MODELS, VGG


def test_what_a_repl_shows_is_short() -> None:
    with np.load(MODELS / "fashion_sample.npz") as sample:
        images = sample["images"][:64].astype(np.float32).reshape(-1, 1, 28, 28) / 255
    analysis = onnxprune.analyze(VGG)
    made = onnxprune.compress(VGG, reduce=0.4, calibration={"image": images}, calibration_samples=32)
    proof = onnxprune.prove(VGG, made.model)
    why = explain(onnxprune.analyze(MODELS / "residual_torchscript.onnx"), "/stem/stem.0/Conv")
    shown = [made.model, analysis, made.plan, made, made.certificate, made.compensation, made.fidelity, proof, why]
    for value in shown:
        lines = repr(value).splitlines()
        assert len(lines) <= 10, type(value)
        assert sum(map(len, lines)) <= 1200, type(value)
    assert "refit with 32 samples" in repr(made)
    assert "answers " in repr(made)
    assert "Certificate passed" in repr(made)
    assert "answers " in made._repr_html_()


def test_a_saved_module_can_be_loaded_and_written_back() -> None:
    pytest.importorskip("torch")
    import io

    import torch

    from onnxprune.torch import to_module, write_back

    module = to_module(VGG)
    with torch.no_grad():
        next(module.parameters()).mul_(2)
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    image = torch.randn(1, 1, 28, 28)
    assert torch.equal(loaded(image), module(image))
    assert loaded.onnx_names.keys() == module.onnx_names.keys()
    assert not loaded.training
    first, second = write_back(module, VGG), write_back(loaded, VGG)
    assert first.to_proto() == second.to_proto()


def test_samples_are_taken_as_they_come() -> None:
    """One array for the only input, and a path, are what they would be with a name and as text."""
    path = MODELS / "fashion_sample.npz"
    with np.load(path) as sample:
        images = sample["images"][:48].astype(np.float32).reshape(-1, 1, 28, 28) / 255
    alone, named = (onnxprune.compress(VGG, reduce=0.4, calibration=data) for data in (images, {"image": images}))
    assert alone.model.to_bytes() == named.model.to_bytes()
    assert "fitted to" in repr(alone)
    found = (onnxprune.plan(VGG, reduce=0.4, criterion="activation", calibration=data) for data in (path, str(path)))
    assert len({str(plan.to_dict()["removed"]) for plan in found}) == 1
