"""What an exploration consists of: its subject, and runs with their settings and figures. Plain data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from onnxprune.data.tasks import AUTO
from onnxprune.exploration.steps import Float, Nothing, Step
from onnxprune.pruning.options import PlanOptions

Status = Literal["done", "failed"]
_KEY_LENGTH = 32


@dataclass(frozen=True, kw_only=True)
class Setting(PlanOptions):
    """How one run prunes, and what follows: ``then`` is done to the pruned model before it is judged.

    After that its numbers become what ``precision`` makes of them.
    """

    then: Step = field(default_factory=Nothing)
    precision: Step = field(default_factory=Float)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; all that decides the result, given model and data."""
        always = {name: getattr(self, name) for name in ("mode", "reduce", "allocation", "criterion", "seed")}
        given = {name: value for name, value in self.given().items() if name not in ("then", "precision")}
        steps = {"then": self.then} | ({} if self.precision == Float() else {"precision": self.precision})
        named = {what: step.name for what, step in steps.items()}
        return {**always, **given, **named, **{step.name: dict(step.to_dict(self.seed)) for step in steps.values()}}


@dataclass(frozen=True)
class About:
    """What all runs of a table have in common.

    Attributes:
        model: the file, as it was named.
        model_digest: identifies graph and weights.
        data: the SPEC, as it was given.
        data_digest: identifies the samples.
        score: what ``accuracy`` means: ``accuracy``, ``r2`` (values as labels) or ``answers`` (the share of
            the original's that is left; ``agreement`` in tables of earlier versions, which compared otherwise).
        engine: threads and provider that latencies hold for; empty if none were measured.
        input_shapes: shapes that were given for symbolic inputs.
        version: of onnxprune.
        task: by whose measure answers are compared; ``auto`` looks at them.
    """

    model: str
    model_digest: str
    data: str
    data_digest: str
    score: str
    engine: Mapping[str, Any] = field(default_factory=dict)
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    version: str = ""
    task: str = AUTO


@dataclass(frozen=True)
class Figures:
    """What was measured of a model.

    Attributes:
        accuracy: on the held-out samples, between 0 and 1; see :attr:`About.score`.
        params: elements. flops: multiply-accumulates. memory: bytes of weights and output activations.
        peak_activations: bytes. size: bytes of the file.
        latency: seconds per run, at best; ``latency_ratio`` is that over the original's, measured in turns with it.
        depth: as :class:`onnxprune.analysis.connectivity.Connectivity` has it, with ``mean_depth``, ``width`` and
            ``paths``; None in tables of earlier versions.
    """

    accuracy: float | None = None
    params: float | None = None
    flops: float | None = None
    memory: float | None = None
    peak_activations: float | None = None
    size: float | None = None
    latency: float | None = None
    latency_ratio: float | None = None
    depth: float | None = None
    mean_depth: float | None = None
    width: float | None = None
    paths: float | None = None


@dataclass(frozen=True)
class Run(Figures):
    """One run as it is recorded.

    Attributes:
        key: hash of model, data and setting.
        status: ``done``, or ``failed`` for the reason in ``message``.
        mode: the complexity that ``reduce`` counts; with ``allocation``, ``criterion`` and ``seed`` as in
            :func:`onnxprune.plan`.
        then: what followed the pruning: ``nothing``, ``train`` or ``compensate``.
        settings: everything that decided the result, as JSON.
        seconds: how long the run took.
        started: UTC, ISO 8601.
        machine: the host that did it.
        digest: SHA-256 of the file that was kept, empty if it was not.
    """

    key: str = ""
    status: Status = "done"
    message: str = ""
    mode: str = ""
    reduce: float = 0.0
    allocation: str = ""
    criterion: str = ""
    seed: int = 0
    then: str = ""
    settings: str = "{}"
    seconds: float = 0.0
    started: str = ""
    machine: str = ""
    digest: str = ""

    @property
    def done(self) -> bool:
        """Whether the run came to its end."""
        return self.status == "done"

    @property
    def precision(self) -> str:
        """The numbers that it computes in: ``float`` or ``int8``."""
        return str(json.loads(self.settings).get("precision", "float"))

    @property
    def label(self) -> str:
        """The settings in a few words."""
        then = "" if self.then in ("", "nothing") else f", {self.then}"
        then += "" if self.precision == "float" else f", {self.precision}"
        return f"{self.mode} −{100 * self.reduce:g} %, {self.allocation}, {self.criterion}, seed {self.seed}{then}"


def run_key(about: About, setting: Setting) -> str:
    """Identifies a run by the contents of model, data and setting."""
    identity = {
        "model": about.model_digest,
        "data": about.data_digest,
        "input_shapes": {name: list(shape) for name, shape in about.input_shapes.items()},
        "setting": setting.to_dict(),
    }
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY_LENGTH]


def run_of(key: str, setting: Setting) -> dict[str, Any]:
    """The fields of a Run that its setting decides."""
    return {
        "key": key,
        "mode": setting.mode,
        "reduce": setting.reduce or 0.0,
        "allocation": setting.allocation,
        "criterion": setting.criterion,
        "seed": setting.seed,
        "then": setting.then.name,
        "settings": json.dumps(setting.to_dict(), sort_keys=True),
    }


def beside(run: Run, original: Figures | None) -> Run:
    """The run with the latency that its ratio gives next to this original, so that all of a table compare."""
    if run.latency_ratio is None or original is None or original.latency is None:
        return run
    return replace(run, latency=run.latency_ratio * original.latency)
