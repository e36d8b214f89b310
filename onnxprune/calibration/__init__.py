"""What a model's activations are like on data: calibration samples, piecewise execution, and statistics."""

from onnxprune.calibration.samples import CalibrationSource, Samples, collect

__all__ = ["CalibrationSource", "Samples", "collect"]
