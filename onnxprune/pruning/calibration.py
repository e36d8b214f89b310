"""Where calibration samples come from: data that is there, or samples made from the model."""

from __future__ import annotations

from onnxprune.data.samples import CalibrationSource
from onnxprune.data.synthetic import Matcher, is_synthetic, read_synthetic
from onnxprune.errors import ConversionError
from onnxprune.ir.caches import default_folder
from onnxprune.ir.model import Model
from onnxprune.passes.normalize import normalize


def sourced(source: CalibrationSource, model: Model) -> CalibrationSource:
    """A source of samples as it is, or what ``synthetic`` stands for.

    Raises:
        DataError: the SPEC of synthetic samples is malformed, or an input has open extents.
    """
    if not isinstance(source, str) or not is_synthetic(source):
        return source
    normal = normalize(model)
    try:
        return read_synthetic(source, normal, _matcher(), default_folder())
    except ConversionError:
        # There is no way to the gradients of this model; what does without them is said in ``Data.made``.
        return read_synthetic(source, normal, None, default_folder())


def _matcher() -> Matcher | None:
    """What matches statistics, where PyTorch is installed."""
    try:
        from onnxprune.torch.synthesis import match
    except ImportError:
        return None
    return match
