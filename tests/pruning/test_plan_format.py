"""The format of plans: its schema, how plans differ, what readers ignore and refuse, and a reader by the book."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import onnxruntime
import pytest

import onnxprune
from onnxprune.ir.session import random_inputs
from onnxprune.pruning.plan import Plan, differences, schema
from tests.cli.support import RESIDUAL, done, done_json, refused, run
from tests.pruning.reference_reader import apply

MODELS = sorted((Path(__file__).parents[2] / "models").glob("*.onnx"))


REGIONS = [{"entry": "a", "exit": "b", "kind": "nothing", "kernel": []}]


def _valid(data: Any) -> bool:
    return jsonschema.Draft202012Validator(schema()).is_valid(data)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_reader_by_the_book_makes_the_same_model(path: Path, tmp_path: Path) -> None:
    plan = onnxprune.plan(path, reduce=0.5)
    plan.save(tmp_path / "plan.json")
    data = json.loads((tmp_path / "plan.json").read_text())
    assert _valid(data)
    normal, wanted = onnxprune.normalize(path), onnxprune.apply(path, plan)
    found = apply(normal.proto, data)
    feeds = random_inputs(wanted, onnxprune.analyze(path).shapes.binding, 0)
    results = [
        onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)
        for proto in (found, wanted.proto)
    ]
    for own, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(own, theirs)
    shapes = {weight.name: tuple(weight.dims) for weight in found.graph.initializer}
    # The library writes shapes that are computed as constants of their own.
    assert {name: w.shape for name, w in wanted.weights.items() if name in normal.weights}.items() <= shapes.items()


@pytest.mark.parametrize(
    "edit",
    [
        lambda data: data.pop("removed"),
        lambda data: data.update(version=2),
        lambda data: data.update(format="other"),
        lambda data: data["removed"].update(w={"-1": [0]}),
        lambda data: data["removed"].update(w={"01": [0]}),
        lambda data: data["removed"].update(w={"0": [-1]}),
        lambda data: data["removed"].update(w={"0": [1, 1]}),
        lambda data: data["before"].update(params="many"),
        lambda data: data["settings"].update(split="inner"),
        lambda data: data.update(replaced=REGIONS),
        lambda data: data.update(replaced=REGIONS, requires=["factors"]),
    ],
)
def test_what_the_schema_refuses(edit: Any) -> None:
    data = onnxprune.plan(RESIDUAL, reduce=0.3).to_dict()
    assert _valid(json.loads(json.dumps(data)))
    edit(data)
    assert not _valid(json.loads(json.dumps(data)))


def test_later_plans_are_read_as_far_as_they_allow() -> None:
    plan = onnxprune.plan(RESIDUAL, reduce=0.3)
    data = {**plan.to_dict(), "author": "somebody"}
    assert Plan.from_dict(data) == plan
    assert Plan.from_dict({**data, "requires": []}) == plan
    with pytest.raises(onnxprune.PlanError, match="requires factors, which this onnxprune does not know; update it"):
        Plan.from_dict({**data, "requires": ["factors"]})


def test_a_reader_without_regions_refuses_plans_that_have_them() -> None:
    plain = onnxprune.plan(RESIDUAL, reduce=0.3).to_dict()
    data = json.loads(json.dumps({**plain, "replaced": REGIONS, "requires": ["replaced"]}))
    assert _valid(data)
    assert Plan.from_dict(data).to_dict() == data
    with pytest.raises(AssertionError):
        apply(onnx.load(RESIDUAL), data)


def test_how_plans_differ() -> None:
    one = Plan({"a": {0: (1, 2, 3)}, "b": {1: (4,)}}, {"seed": 0, "mode": "flops"})
    other = Plan({"a": {0: (2, 3, 5, 6)}, "c": {0: (0,)}}, {"seed": 1, "mode": "flops"})
    said = {found.where: found.words for found in differences(one, other)}
    assert said == {
        "setting seed": "0 in the first, 1 in the second",
        "'a' axis 0": "the second also removes 5-6; the second keeps 1",
        "'b' axis 1": "the second keeps 4",
        "'c' axis 0": "the second also removes 0",
    }
    assert differences(one, one) == ()


def test_plan_writes_what_apply_takes(tmp_path: Path) -> None:
    first, second, output = tmp_path / "1.json", tmp_path / "2.json", tmp_path / "out.onnx"
    data = done_json("plan", RESIDUAL, "--reduce", 0.4, "-o", first)
    assert data["after"]["flops"] <= 0.6 * data["before"]["flops"]
    assert "next: onnxprune apply" in done("plan", RESIDUAL, "--reduce", 0.4, "-o", second, "--force")
    assert "The plans are equal." in done("plan", "--diff", first, second)
    done("apply", RESIDUAL, first, "-o", output, "--no-bench")
    pruned = tmp_path / "pruned.onnx"
    done("prune", RESIDUAL, "--reduce", 0.4, "-o", pruned, "--no-bench")
    assert [w.array.tobytes() for w in onnxprune.load(output).weights.values()] == [
        w.array.tobytes() for w in onnxprune.load(pruned).weights.values()
    ]
    done("plan", RESIDUAL, "--reduce", 0.3, "-o", second, "--force")
    differing = run("plan", "--diff", first, second)
    assert differing.exit_code == 1
    assert "setting reduce: 0.4 in the first, 0.3 in the second" in differing.stdout
    assert "give a model and --output" in refused(2, "plan", RESIDUAL, "--reduce", 0.4)
    assert "takes neither a model" in refused(2, "plan", RESIDUAL, "--diff", first, second)
