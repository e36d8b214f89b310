"""What a file tells of its weights: told in either form, noticed when untrue, and hashed once."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.ir import weights
from onnxprune.ir.provenance import has_weights, steps_of, weights_digest, with_step
from onnxprune.ir.storage import Array, contents
from tests.cli.support import conv, model


def _network() -> onnx.ModelProto:
    """Four convolutions, of which no two have the same values."""
    made = model(conv("x", "a", 180, 3), conv("a", "b", 180, 180), conv("b", "c", 180, 180), conv("c", "y", 4, 180))
    random = np.random.default_rng(0)
    for tensor in made.graph.initializer:
        values = random.standard_normal(tuple(tensor.dims)).astype(np.float32)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    return made


def _first_form(given: onnxprune.Model) -> str:
    """The digest as the first files have it: over all bytes."""
    state = hashlib.sha256()
    for name, weight in sorted(given.weights.items()):
        state.update(f"\0{name} {weight.elem_type} {weight.shape}\0".encode())
        state.update(np.ascontiguousarray(weight.array).tobytes())
    return state.hexdigest()


def _changed(given: onnxprune.Model) -> onnxprune.Model:
    """The same with one value other by the smallest step."""
    draft = given.edit()
    name, weight = next(iter(given.weights.items()))
    array = weight.array.copy()
    array.flat[-1] = np.nextafter(array.flat[-1], np.float32(9))
    draft.weights[name] = weight.with_array(array)
    return draft.finish()


@pytest.mark.parametrize("form", [weights_digest, _first_form])
def test_weights_are_known_by_both_forms_and_any_change_is_noticed(form: object) -> None:
    given = onnxprune.load(_network())
    told = form(given)  # type: ignore[operator]
    assert has_weights(given, told)
    assert has_weights(onnxprune.load(given.to_proto()), told)
    assert not has_weights(_changed(given), told)


@pytest.mark.parametrize("told", [None, 3, "", "each:", ["each:"]])
def test_what_is_no_digest_is_of_no_model(told: object) -> None:
    assert not has_weights(onnxprune.load(_network()), told)


def test_each_weight_of_a_streamed_result_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnxprune.load(_network()).save(tmp_path / "m.onnx", external_data=float("inf"))
    hashed: Counter[bytes] = Counter()

    def counting(values: Array) -> object:
        hashed[contents(values).tobytes() if values.ndim == 4 else b""] += 1
        return contents(values)

    monkeypatch.setattr(weights, "contents", counting)
    made = onnxprune.compress(tmp_path / "m.onnx", channels=0.5, certify=False).model
    with_step(made, "train", {}).save(tmp_path / "p.onnx")
    read = onnxprune.load(tmp_path / "p.onnx")
    assert has_weights(read, steps_of(read)[-1]["weights"])
    large = [weight.array.tobytes() for weight in read.weights.values() if len(weight.shape) == 4]
    assert len(large) == 4
    # Once for the step and the name of the data, once for reading the file anew.
    assert [hashed[one] for one in large] == [2] * 4


def test_the_name_of_data_follows_what_lies_where(tmp_path: Path) -> None:
    given = onnxprune.load(_network())
    draft = given.edit()
    first, second = [name for name, weight in given.weights.items() if weight.shape == (180, 180, 3, 3)]
    for name, other in ((first, second), (second, first)):
        draft.weights[name] = given.weights[name].with_array(given.weights[other].array)
    names = set()
    for number, one in enumerate((given, onnxprune.load(given.to_proto()), _changed(given), draft.finish())):
        (folder := tmp_path / str(number)).mkdir()
        one.save(folder / "m.onnx", external_data=float("inf"))
        names.add(next(folder.glob("*.data")).name)
    assert len(names) == 3
