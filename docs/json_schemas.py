"""Writes the schemas of what ``--json`` prints, and the page about them: ``python docs/json_schemas.py``.

What a command prints is told once, here, by the types that it is made of. The schema goes into the package
(``onnxprune/cli/output.schema.json``); every JSON document that a test sees is held against it (tests/cli/support.py).
"""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from typing_extensions import NotRequired, TypedDict

from onnxprune.analysis.analyzing import GroupReport, LayerReport, PinReport
from onnxprune.analysis.connectivity import Connectivity
from onnxprune.analysis.explain import Explanation
from onnxprune.analysis.prunability import Summary
from onnxprune.data.bounds import Bound
from onnxprune.data.evaluation import Score
from onnxprune.data.fidelity import Fidelity
from onnxprune.data.tasks import Verdict
from onnxprune.exploration.runs import About, Figures, Run
from onnxprune.ir.agreement import Agreement
from onnxprune.ir.engine import Engine
from onnxprune.ir.extents import OpenExtent
from onnxprune.ir.tracing import NodeTime, TypeTime
from onnxprune.latency.fitting import Trial
from onnxprune.latency.memory import Memory
from onnxprune.latency.model import LatencyProfile
from onnxprune.latency.predicting import Foretold
from onnxprune.latency.statistics import Ratio, Spread
from onnxprune.pruning.certificate import Certificate
from onnxprune.pruning.comparison import LayerChange
from onnxprune.pruning.compensation.refit import LayerFit
from onnxprune.pruning.mutations.power import Power
from onnxprune.pruning.plan import Replacement
from onnxprune.pruning.quantization.certificate import QuantizationCertificate
from onnxprune.pruning.regions.costs import RegionCost
from onnxprune.pruning.rounds import Round
from onnxprune.pruning.sensitivity import Sensitivity
from onnxprune.splitting.costs import PartCost
from onnxprune.splitting.exits import Exits
from onnxprune.splitting.weighing import CutCost
from onnxprune.torch import Recipe
from onnxprune.torch.gates import Moment
from onnxprune.torch.recovery import State
from onnxprune.torch.training.history import Epoch

ROOT = Path(__file__).parents[1]
SCHEMA = ROOT / "onnxprune" / "cli" / "output.schema.json"
PAGE = ROOT / "docs" / "reference" / "json.md"
_INTRODUCTION = """\
# The outputs of --json

Written by `python docs/json_schemas.py`; do not edit. With `--json` a command prints one JSON document and nothing else
to stdout; where it fails, that is [Failure](#failure), and the exit code is not 0. Times are in seconds, memory and
sizes in bytes, FLOPs are multiply-accumulates; infinities and what is no number are `null`. Keys may be added, so
readers ignore what they do not know; what goes or changes its meaning stands in the [changes](../../CHANGELOG.md).

The JSON Schema is in the package, `onnxprune/cli/output.schema.json`; each command is a definition of its own there:

```python
import json
from importlib.resources import files

schema = json.loads(files("onnxprune.cli").joinpath("output.schema.json").read_text("utf-8"))
of_prune = {**schema, "$ref": "#/$defs/prune"}  # what jsonschema.validate takes
```
"""

Shapes = dict[str, list[int]]
Totals = dict[str, float]
"""``params``, ``flops`` (multiply-accumulates), ``memory`` and ``peak_activations`` (bytes), ``file_size`` (bytes)."""


def plain(cls: type, without: tuple[str, ...] = (), **more: Any) -> Any:
    """What a dataclass becomes as plain data, without some fields and with keys beside, or instead of, the others."""
    hints = get_type_hints(cls)
    told = TypedDict(cls.__name__, {f.name: hints[f.name] for f in fields(cls) if f.name not in without} | more)
    told.__doc__ = cls.__doc__
    return told


def keys(title: str, /, *parts: Any, said: str = "", **more: Any) -> Any:
    """An object with these keys and those of others."""
    together = {key: kind for part in parts for key, kind in get_type_hints(part, include_extras=True).items()}
    told = TypedDict(title, together | more)
    told.__doc__ = said
    return told


class BeforeAfter(TypedDict):
    before: int
    after: int


CertificateTold = plain(Certificate, passed=bool, complete=bool)
FidelityTold = plain(Fidelity, verdict=Verdict | None, share=float | None)
SpreadTold = plain(Spread, iqr=float, relative_iqr=float)
Gates = keys(
    "Gates",
    said="What gates learnt to remove, and how; `last` is the last step before all was settled.",
    gates=int,
    closed=int,
    epochs=list[Epoch],
    last=Moment,
    before=Totals,
    after=Totals,
    replaced=list[dict[str, Any]],
    certificate=CertificateTold | None,
)
ModelTimes = keys(
    "ModelTimes",
    said="Times in seconds, peak memory in bytes; the ratio is to the first model.",
    model=str,
    input_shapes=Shapes,
    latency=SpreadTold,
    ratio=Ratio | None,
    memory=Memory | None,
    layers=dict[str, int] | None,
    operators=list[TypeTime],
    nodes=list[NodeTime],
)
Bench = keys(
    "Bench",
    said="Models measured in turns; `noise` says why not to trust it.",
    engine=Engine,
    models=list[ModelTimes],
    noise=str | None,
)
Profile = plain(LatencyProfile, without=("tables", "nodes"), baseline=SpreadTold, choices=dict[str, float])
LatencyFit = keys(
    "LatencyFit",
    said="How a latency was met, in seconds.",
    asked=float,
    predicted=float,
    measured=float,
    met=bool,
    precision=str,
    ratio=Ratio,
    trials=list[Trial],
    profile=Profile,
)
Compensation = keys(
    "Compensation",
    said="What a refit did, layer by layer; `skipped` says why of those that it left out.",
    method=str,
    samples=int,
    changed=list[str],
    layers=list[LayerFit],
    skipped=dict[str, str],
)
Recovery = keys(
    "Recovery",
    said="How it went; `kept` is the index of the state that is written.",
    samples=int,
    held_out=int,
    blocks=list[str],
    kept=int,
    states=list[State],
)
Seconds = keys("Seconds", float=float, result=float, ratio=float)
Integers = keys(
    "Quantization",
    said="Which layers compute in integers, why others do not, and what that costs; `sqnr` in dB, by output.",
    layers=list[str],
    floats=dict[str, str],
    method=str,
    format=str,
    corrected_biases=bool,
    equalised=int,
    samples=int,
    sqnr=dict[str, float],
    error=dict[str, float],
    seconds=Seconds,
    engine=Engine,
    certificate=plain(QuantizationCertificate, passed=bool) | None,
    fidelity=FidelityTold,
)
Form = keys(
    "Form",
    said="A form that needs no samples: float16, weights of fewer bits, ranges found at run time.",
    form=str,
    weights=keys("Weights", compared=int, worst_steps=float),
    sqnr=dict[str, float],
    error=dict[str, float],
    generated_samples=bool,
    samples=int,
    file_size=BeforeAfter,
    smaller=bool,
    seconds=Seconds,
    faster=bool,
    engine=Engine,
    fidelity=FidelityTold | None,
)
BoundTold = plain(Bound, method=str)
Tried = keys("Tried", candidate=str, foreseen=float, bound=BoundTold | None)
Candidate = keys(
    "Candidate",
    reduce=float,
    levers=str,
    int8=bool,
    recovered=bool,
    seconds=float | None,
    flash=float | None,
    ram=float | None,
)
Promise = keys(
    "Promise",
    BoundTold,
    said="What is proven of the loss.",
    max_loss=float,
    what=str,
    chosen=str,
    candidates=list[Tried],
)
Comparison = keys(
    "Comparison", before=Totals, after=Totals, layers=list[LayerChange], approximate=list[str], said="Before and after."
)
Files = keys("Files", model=str, output=str)
Gradient = keys(
    "Surrogate",
    said="The gradient of thresholds.",
    kind=Literal["fast-sigmoid", "atan"] | None,
    slope=float,
    thresholds=int,
    weights=int,
    of=int,
)
Epochs = keys("Epochs", epochs=list[Epoch], kept_epoch=int, seconds=float, surrogate=Gradient | None)
Trained = keys("Trained", Epochs, costs=Totals, test=Score | None)
Made = keys(
    "Made",
    Files,
    Comparison,
    plan=str | None,
    settings=dict[str, Any],
    input_shapes=Shapes,
    assumed_inputs=list[str],
    removed=dict[str, float],
    unknown=dict[str, str],
    certificate=CertificateTold | None,
    latency=LatencyFit | plain(Foretold, measured=None) | None,
    compensation=Compensation | None,
    recovery=Recovery | None,
    rounds=list[Round],
    quantization=Integers | None,
    fidelity=FidelityTold | None,
    promise=Promise | None,
    bench=Bench | None,
)
PartTold = plain(PartCost, memory=float, intensity=float)
CutTold = plain(CutCost, without=("cut",), head=PartTold, tail=PartTold)
ListedRun = keys("ListedRun", Run, precision=str)
Table = keys("Table", about=About, original=Figures | None, runs=list[ListedRun], pareto=list[str])
Kept = keys(
    "Kept",
    output=str,
    axis=int,
    positions=list[int],
    extent=int,
    renormalised=str | None,
    left=int,
    why=list[str],
    difference=float | None,
)
Passed = keys("Passed", Files, passes=list[str], modified=bool, nodes=BeforeAfter, file_size=BeforeAfter)
InRuntime = keys(
    "InRuntime",
    name=str,
    original=plain(Agreement, passed=bool),
    pruned=plain(Agreement, passed=bool),
)
Proof = keys(
    "Proof",
    CertificateTold,
    said="What was proven; `passed` is of the whole, `removal_passed` of the removal alone.",
    removal_passed=bool,
    changed=list[str],
    steps=list[dict[str, Any]],
    as_left=bool,
    same_original=bool | None,
    runtime=NotRequired[InRuntime],
    power=Power | None,
)
Manifest = Annotated[dict[str, Any], Field(description="of onnxprune/splitting/manifest.schema.json")]
PassOption = keys("PassOption", name=str, type=str, default=str | int | float | bool | None, required=bool, help=str)
PassName = keys("PassName", name=str, summary=str)

OUTPUTS: dict[str, Any] = {
    "analyze": keys(
        "Analyze",
        model=str,
        input_shapes=Shapes,
        assumed_inputs=list[str],
        open_dimensions=list[plain(OpenExtent, origin=str)],
        totals=Totals,
        connectivity=plain(Connectivity, paths=float | None),
        layers=list[LayerReport],
        groups=list[GroupReport],
        pins=list[PinReport],
        unknown=dict[str, str],
        state=dict[str, str],
        proposed_state=dict[str, str],
        normalisation_statistics=int,
        summary=Summary,
    ),
    "explain": Explanation
    | keys("Graph", axes=int, relations=int)
    | keys("Regions", regions=list[RegionCost], replaced=list[plain(Replacement, words=str)]),
    "sensitivity": plain(Sensitivity, model=str, kept_in=str),
    "report": keys(
        "Report",
        output=str,
        bytes=int,
        candidates=list[str],
        plots=list[str],
        verdicts=list[keys("Headline", name=str, headline=str, passed=bool)],
        passed=bool,
    ),
    "bench": Bench,
    "profile": Annotated[dict[str, Any], Field(description="the times, of onnxprune/latency/times.schema.json")],
    "prune": Made,
    "auto": keys(
        "Auto",
        Files,
        promise=Promise,
        original=Candidate,
        chosen=Candidate,
        candidates=list[keys("TriedCandidate", Tried, Candidate)],
        certificate=CertificateTold | None,
        quantization=Integers | None,
        seconds=float,
        skipped=list[str],
        times=Annotated[str | None, Field(description="what latency was predicted from; None where it was measured")],
        sentences=list[str],
        command=str,
    ),
    "plan": keys("Planned", Comparison, output=str, settings=dict[str, Any])
    | keys(
        "Differences", equal=bool, differences=list[keys("Difference", where=str, before=Any, after=Any)], said="--diff"
    ),
    "apply": Made,
    "verify": Proof,
    "quantize": keys("Quantized", Files, Integers, file_size=BeforeAfter) | keys("Converted", Files, Form),
    "split": keys(
        "Cuts",
        model=str,
        coding=str,
        note=str,
        best=dict[str, list[str]],
        cuts=list[CutTold],
        said="Without --output: all cuts, weighed.",
    )
    | keys(
        "Parts",
        Files,
        cut=CutTold,
        manifest=Manifest,
        plan=NotRequired[dict[str, Any]],
        costs=NotRequired[Totals],
        said="With --output: the cut, what is in the folder, and what --max-wire removed for it.",
    )
    | keys(
        "Chain",
        model=str,
        parts=list[PartTold],
        wire=list[float],
        cuts=list[list[str]],
        output=NotRequired[str],
        manifest=NotRequired[Manifest],
        said="With --budgets or --parts: what each part takes, and what crosses between.",
    ),
    "exits": plain(
        Exits,
        model=str,
        bound=BoundTold,
        early=float,
        mean_macs=float,
        mean_seconds=float | None,
        output=NotRequired[str],
        manifest=NotRequired[Manifest],
    ),
    "keep": keys(
        "Keep",
        Files,
        kept=list[Kept],
        before=Totals,
        after=Totals,
        metadata=list[str],
        certificate=CertificateTold | None,
    ),
    "recover": keys("Recovered", Files, recovery=Recovery, fidelity=FidelityTold | None),
    "train": keys(
        "Train",
        Files,
        Epochs,
        data=str,
        recipe=Recipe,
        gates=NotRequired[Gates],
        before=NotRequired[Score],
        after=NotRequired[Score],
    ),
    "compress": keys(
        "Compress",
        Files,
        data=str,
        plan=dict[str, Any],
        recipe=Recipe,
        unpruned=keys(
            "Unpruned",
            costs=Totals,
            test=NotRequired[Score | None],
            epochs=NotRequired[list[Epoch]],
            kept_epoch=NotRequired[int],
            seconds=NotRequired[float],
            surrogate=NotRequired[Gradient | None],
        ),
        pruned=Trained,
        certificate=CertificateTold | None,
    ),
    "torch": keys("Torch", output=str, files=list[str]),
    "explore": Table,
    "pick": keys(
        "Pick",
        output=str,
        origin=Literal["kept", "rebuilt"],
        recorded=Run,
        checked=Figures,
        passed_over=list[keys("PassedOver", run=str, reason=str)],
    ),
    "merge": Table,
    "normalize": Passed,
    "run": Passed,
    "passes": keys("Passes", passes=list[PassName]) | keys("Pass", PassName, options=list[PassOption]),
    "error": keys("Failure", error=keys("Error", type=str, message=str), said="Of any command that fails."),
}
"""What each command prints with ``--json``; ``error`` is what any of them prints instead where it fails."""


class _Generator(GenerateJsonSchema):
    """As ``asdict`` and ``json`` write: fields with defaults are there, too; null stands for what is not finite."""

    def float_schema(self, schema: Any) -> Any:
        return {"type": ["number", "null"]}

    def field_is_required(self, field: Any, total: bool) -> bool:
        return field["type"] == "dataclass-field" or super().field_is_required(field, total)


_ATTRIBUTE = re.compile(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", re.MULTILINE)


def _tidied(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without what repeats its keys, and with what a docstring says of an attribute at the attribute."""
    said, *rest = schema.pop("description", "").replace("``", "`").split("\n\nAttributes:\n")
    told = dict(_ATTRIBUTE.findall(rest[0])) if rest else {}
    head = {"description": " ".join(said.split("\n\nRaises:")[0].split())} if said else {}
    for key, one in schema.get("properties", {}).items():
        for noise in ("title", "default"):
            one.pop(noise, None)
        if key in told:
            one["description"] = " ".join(told[key].split())
        one.update(_shortened(one))
    schema.pop("title", None)
    return {**head, **schema}


def _shortened(schema: dict[str, Any]) -> dict[str, Any]:
    """``anyOf`` of plain types as one list of types."""
    ways = schema.get("anyOf", [])
    if ways and all(way.keys() == {"type"} and isinstance(way["type"], (str, list)) for way in ways):
        del schema["anyOf"]
        flat = [kind for way in ways for kind in ([way["type"]] if isinstance(way["type"], str) else way["type"])]
        return {"type": list(dict.fromkeys(flat))}
    return {}


def schema() -> dict[str, Any]:
    """The schema of all outputs: ``$defs`` has each command by its name, and the parts that they share."""
    adapters = [(command, "serialization", TypeAdapter(kind)) for command, kind in OUTPUTS.items()]
    tops, parts = TypeAdapter.json_schemas(adapters, schema_generator=_Generator)
    commands = {command: top for (command, _), top in tops.items()}
    found = {name: _tidied(part) for name, part in sorted(parts["$defs"].items())}
    return {
        "$schema": _Generator.schema_dialect,
        "$id": "onnxprune-output-1",
        "description": "What onnxprune COMMAND --json prints: $defs has every command by name, 'error' for failures.",
        "$defs": commands | found,
    }


def written() -> str:
    """The schema as it is in the package: one definition a line."""
    whole = schema()
    parts = whole.pop("$defs")
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(part, ensure_ascii=False)}" for name, part in parts.items())
    return json.dumps(whole, indent=1, ensure_ascii=False)[:-2] + f',\n "$defs": {{\n{lines}\n }}\n}}\n'


def _kind(schema: dict[str, Any]) -> str:
    """A type in words, with links to the parts."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_kind(way) for way in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{word}`" for word in schema.get("enum", [schema.get("const")]))
    kinds = schema.get("type", "anything")
    if isinstance(kinds, list):
        return " or ".join(kinds)
    if kinds == "array" and "prefixItems" in schema:
        return "[" + ", ".join(_kind(item) for item in schema["prefixItems"]) + "]"
    if kinds == "array":
        return f"list of {_kind(schema['items'])}"
    if kinds == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_kind(schema['additionalProperties'])}"
    return str(kinds)


def _part(name: str, part: dict[str, Any]) -> str:
    lines = [f"### {name}", ""]
    if "description" in part:
        lines += [part["description"], ""]
    if "properties" not in part:
        return "\n".join([*lines, f"{_kind(part)}.", ""])
    lines += ["| key | is | |", "| --- | --- | --- |"]
    for key, one in part["properties"].items():
        rare = "" if key in part["required"] else " *(not always there)*"
        lines.append(f"| `{key}` | {_kind(one)}{rare} | {one.get('description', '')} |".replace("  |", " |"))
    return "\n".join([*lines, ""])


def page() -> str:
    """The page of the reference."""
    parts = schema()["$defs"]
    tops = {name: parts.pop(name) for name in OUTPUTS}
    commands = "".join(f"| `{name}` | {top.get('description') or _kind(top)} |\n" for name, top in tops.items())
    return f"{_INTRODUCTION}\n| command | prints |\n| --- | --- |\n{commands}\n## Parts\n\n" + "\n".join(
        _part(name, part) for name, part in parts.items()
    )


if __name__ == "__main__":
    SCHEMA.write_text(written(), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
