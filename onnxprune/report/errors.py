"""What to say where an optional library is not installed."""

from __future__ import annotations

from onnxprune.errors import UsageError, installing


def missing(error: ImportError, what: str = "reports need") -> UsageError:
    """The error to raise for a failed import of one of the libraries of the extra ``report``."""
    return UsageError(f"{what} {error.name}, which is not installed; {installing('report')}")
