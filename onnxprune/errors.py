"""The exceptions of onnxprune: each says what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Iterable


class OnnxPruneError(Exception):
    """Base of every error that onnxprune raises on purpose."""


class ModelError(OnnxPruneError):
    """A file that is not ONNX, is truncated, fails the checker, or lacks its weights."""


class ShapeError(OnnxPruneError):
    """The shapes of a graph cannot be found for the given input shapes."""


class RegistryError(OnnxPruneError):
    """Two operators claim the same type, domain and opset."""


class PlanError(OnnxPruneError):
    """A plan that does not fit its model: other tensors, coupled positions left behind, an emptied axis."""


class BudgetError(OnnxPruneError):
    """A budget that cannot be met; the message names the smallest reachable value and what stands in the way."""


class PassError(OnnxPruneError):
    """A pass broke its postcondition, or a pass of that name does not exist."""


class VerificationError(OnnxPruneError):
    """The pruned model does not equal the masked original, or onnxruntime does not run it."""


class AnswersError(OnnxPruneError):
    """Less is left of what a model says than was asked for."""


class UsageError(OnnxPruneError):
    """An argument outside what the function takes."""


class ConversionError(OnnxPruneError):
    """A model that cannot become a PyTorch module, or a module that does not fit the model."""


class DataError(OnnxPruneError):
    """Data that is missing, empty or damaged, or does not fit the model."""


class MeasurementError(OnnxPruneError):
    """A latency that cannot be measured: onnxruntime fails, or the machine is too noisy."""


class TrainingError(OnnxPruneError):
    """Training that cannot go on: a loss that is not finite, or settings that do not fit model or machine."""


class CheckpointError(OnnxPruneError):
    """A checkpoint that is missing or damaged, belongs to another training, or cannot be written."""


class ResultsError(OnnxPruneError):
    """A table of results that is missing, damaged, or of another model or other data."""


class RecordingError(ResultsError):
    """A result that could not be recorded: the disk is full, or the table cannot be written."""


class ClusterError(OnnxPruneError):
    """A scheduler that does not answer, or a cluster that has no workers left."""


def installing(extra: str) -> str:
    """How to install what an extra holds: its libraries by name, whether or not an index has onnxprune itself."""
    import re
    from importlib.metadata import PackageNotFoundError, requires

    try:
        listed = requires("onnxprune") or []
    except PackageNotFoundError:  # run from a checkout
        listed = []
    marker = re.compile(rf"""extra == ['"]{re.escape(extra)}['"]""")
    found = [line.partition(";")[0].strip() for line in listed if marker.search(line)]
    if not found:
        return f"it belongs to the extra '{extra}'"
    return "install it with: pip install " + " ".join(f"'{requirement}'" for requirement in found)


def unknown(what: str, name: str, known: Iterable[str], choose: str = "one of") -> str:
    """That a name is not known, with the one that was probably meant, and all that there are."""
    from difflib import get_close_matches

    names = list(known)
    close = get_close_matches(name, names, 1)
    meant = f"; did you mean {close[0]}? Choose" if close else "; choose"
    return f"{what} '{name}' is not known{meant} {choose} {', '.join(names)}"
