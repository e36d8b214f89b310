"""The page: one HTML file with its data, its script and the plotting library inside, and nothing to fetch."""

from __future__ import annotations

import json
import platform
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from onnxprune._display import MACS, TOTALS, long, percent, seconds
from onnxprune.analysis.sentences import assumptions, not_understood
from onnxprune.pruning.certificate import Certificate
from onnxprune.pruning.options import CompressOptions, as_words
from onnxprune.report.content import Candidate, Report, ReportedModel
from onnxprune.report.errors import missing
from onnxprune.report.payload import payload
from onnxprune.report.verdict import verdicts

_TOTALS = {
    **TOTALS,
    "time": ("time of a run", "s"),
    "depth": ("layers on the longest way", ""),
    "width": ("channels at the narrowest place", ""),
    "paths": ("ways through channels, log10", ""),
}
_METRICS = {"params": "parameters", "flops": "MACs", "memory": "memory", "time": "time"}
_PACKAGES = ("onnxprune", "onnx", "onnxruntime", "numpy")
_PROFILED = (
    " Times of layers were measured under onnxruntime's profiler, which slows layers down: they tell where time "
    "goes. Times of a run are measured without it."
)
_EXPOSED = "window.vegaEmbed = vegaEmbed;"


def render(report: Report) -> str:
    """The page of a report.

    Raises UsageError where the libraries of the extra ``report`` are missing.
    """
    try:
        from jinja2 import Environment, FunctionLoader, StrictUndefined, select_autoescape
        from markupsafe import Markup
    except ImportError as error:
        raise missing(error) from error
    environment = Environment(
        loader=FunctionLoader(_asset), autoescape=select_autoescape(default=True), undefined=StrictUndefined
    )
    template = environment.get_template("page.html.j2")
    return template.render(
        **_words(report),
        style=Markup(_asset("style.css")),
        script=Markup(_script()),
        library=Markup(_library()),
        data=Markup(_embedded(_data(report))),
    )


def _data(report: Report) -> dict[str, Any]:
    try:
        from onnxprune.report.charts import specifications
    except ImportError as error:
        raise missing(error) from error
    return {**payload(report), "totals": report.original.analysis.totals, "charts": specifications()}


def _embedded(data: Mapping[str, Any]) -> str:
    """JSON that no name can break out of: within a script element, only ``<`` has a meaning."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _asset(name: str) -> str:
    return (files("onnxprune.report") / "assets" / name).read_text(encoding="utf-8")


def _script() -> str:
    names = sorted(entry.name for entry in (files("onnxprune.report") / "assets").iterdir())
    return "\n".join(_asset(name) for name in names if name.endswith(".js"))


@cache
def _library() -> str:
    """Vega, Vega-Lite and vega-embed for the specifications that the installed Altair writes."""
    try:
        import altair
        import vl_convert
    except ImportError as error:
        raise missing(error) from error
    wanted = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    bundle: str = vl_convert.javascript_bundle(_EXPOSED, vl_version=wanted)
    return bundle


def _words(report: Report) -> dict[str, Any]:
    """What the template fills in, besides the script."""
    original = report.original
    sections = {
        **({"verdict": "Verdict"} if report.candidates else {}),
        "totals": "Totals",
        "changes": "Layers",
        **({"tradeoff": "Trade-off"} if report.results is not None else {}),
        "coupling": "Coupling",
        "shares": "Complexity",
        "memory": "Memory",
        **({"certificates": "Certificates"} if report.candidates else {}),
        "reproduce": "Reproduce",
    }
    titles = {key: title for key, title in _METRICS.items() if key != "time" or original.layer_times}
    return {
        "model": original,
        "lead": _lead(report),
        "verdicts": verdicts(report),
        "date": report.date,
        "sections": list(sections.items()),
        "metrics": list(titles.items()),
        "candidates": [_candidate(report, candidate) for candidate in report.candidates],
        "totals": _totals(report),
        "assumptions": f"{assumptions(original.analysis)} {MACS}" + (_PROFILED if original.layer_times else ""),
        "warnings": not_understood(original.analysis),
        "results": report.results,
        "command": report.command,
        "files": [_file(subject) for subject in (original, *(c.subject for c in report.candidates))],
        "versions": _versions(),
    }


def _lead(report: Report) -> str:
    analysis = report.original.analysis
    totals = analysis.totals
    has = (
        f"{len(analysis.layers)} layers with {long(totals['params'])} parameters and {long(totals['flops'])} MACs "
        "(multiply-accumulates)"
    )
    return f"{has}."


def _versions() -> str:
    return ", ".join([*(f"{name} {version(name)}" for name in _PACKAGES), f"Python {platform.python_version()}"])


def _totals(report: Report) -> list[dict[str, Any]]:
    before = _measures(report, report.original, 0)
    after = [_measures(report, c.subject, at) for at, c in enumerate(report.candidates, start=1)]
    return [
        {
            "title": title,
            "before": _quantity(before[key], unit),
            "after": [_cell(before[key], values[key], unit) for values in after],
        }
        for key, (title, unit) in _TOTALS.items()
        if key in before and all(key in values for values in after)
    ]


def _quantity(value: float, unit: str) -> str:
    return seconds(value) if unit == "s" else long(value, unit)


def _measures(report: Report, subject: ReportedModel, at: int) -> dict[str, float]:
    found = {**subject.analysis.totals, "file_size": float(subject.file_size)}
    if report.times is not None and not isinstance(report.times, str):
        found["time"] = report.times.subjects[at].latency.median
    connected = subject.analysis.connectivity.to_dict()
    return found | {name: float(connected[name]) for name in ("depth", "width", "paths") if connected[name] is not None}


def _cell(before: float, after: float, unit: str) -> dict[str, Any]:
    change = after / before - 1 if before else 0.0
    sign = "−" if change < 0 else "+"
    text = "±0 %" if after == before else f"{sign}{percent(abs(change))}"
    return {"value": _quantity(after, unit), "change": text, "less": after < before}


@dataclass(frozen=True)
class _Candidate:
    """A candidate as the template shows it."""

    name: str
    certificate: Certificate | None
    sentences: tuple[str, ...]
    remark: str
    verdict: str
    verdict_text: str
    command: str


def _candidate(report: Report, candidate: Candidate) -> _Candidate:
    certificate = None if candidate.proof is None else candidate.proof.certificate
    verdict = "none" if candidate.proof is None else "passed" if candidate.proof.passed else "failed"
    text = {"none": "no certificate", "passed": "passed", "failed": "failed"}[verdict]
    command = ""
    if candidate.plan is not None:
        command = prune_command(
            report.original.name, candidate.subject.name, {**candidate.plan.settings, **candidate.job}
        )
    said = () if candidate.proof is None else candidate.proof.sentences
    return _Candidate(candidate.subject.name, certificate, said, candidate.remark, verdict, text, command)


def prune_command(model: str, output: str, settings: Mapping[str, Any]) -> str:
    """The command that makes a model with these settings of plan and job; what was put in by hand cannot be told."""
    return shlex.join(["onnxprune", "prune", model, "-o", output, *as_words(CompressOptions, settings)])


def _file(subject: ReportedModel) -> dict[str, Any]:
    return {"name": subject.name, "size": long(subject.file_size, "B"), "digest": subject.digest}
