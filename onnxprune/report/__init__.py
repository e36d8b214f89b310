"""Reports: what pruning did to a model, as one HTML page that works offline, and as static plots.

The page is written by :func:`onnxprune.report.page.render` from a :class:`Report`. Needs the extra ``report``.
"""

from __future__ import annotations

from onnxprune.report.content import Candidate, Report, ReportedModel, candidate, subject

__all__ = ["Candidate", "Report", "ReportedModel", "candidate", "subject"]
