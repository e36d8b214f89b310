"""Prune a classifier with arrays of your own: no labels, no files, and nothing written that lost too much."""

from pathlib import Path

import numpy as np

import onnxprune

MODELS = Path(__file__).resolve().parents[1] / "models"

# Whatever your preprocessing makes of your samples: one array, or one per graph input by name.
images = np.load(MODELS / "fashion_sample.npz")["images"][:, None].astype(np.float32) / 255

try:
    result = onnxprune.compress(
        MODELS / "residual_torchscript.onnx",
        reduce=0.5,  # of the multiply-accumulates
        calibration=images,  # chooses channels, and fits what is left
        calibration_samples=250,  # of these; the others judge
        min_agreement=0.9,  # of the original's answers
    )
except (onnxprune.BudgetError, onnxprune.AnswersError) as error:
    raise SystemExit(f"not written: {error}") from error

print(result)
result.save("smaller.onnx")
