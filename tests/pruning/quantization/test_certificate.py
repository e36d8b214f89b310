"""Whatever is wrong with a quantised file is noticed."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from onnxprune.errors import VerificationError
from onnxprune.ir.model import Draft, Model
from onnxprune.pruning.quantization.calibrating import Ranges, collect_histograms
from onnxprune.pruning.quantization.certificate import QuantizationCertificate, certify_quantised
from onnxprune.pruning.quantization.formats import Format
from onnxprune.pruning.quantization.preparing import prepare
from onnxprune.pruning.quantization.writing import quantisable, write_quantised

from .networks import network, samples

Made = tuple[Model, Model, Ranges]


@pytest.fixture(scope="module")
def made() -> Made:
    prepared = prepare(network(), samples())
    ranges = collect_histograms(prepared, samples()).ranges("minmax")
    return prepared, write_quantised(prepared, ranges, quantisable(prepared), Format(False, False)), ranges


def certified(made: Made, quantised: Model) -> QuantizationCertificate:
    return certify_quantised(made[0], quantised, made[2], next(samples(1).part(0, 2).batches()))


def changed(made: Made, name: str, change: Callable[[np.ndarray], np.ndarray]) -> Model:
    draft = made[1].edit()
    old = draft.weights[name]
    draft.weights[name] = old.with_array(np.array(change(old.array), old.dtype, order="C"))
    return draft.finish()


def test_what_is_right_passes(made: Made) -> None:
    found = certified(made, made[1])
    found.require()
    assert found
    assert not found.unknown
    assert found.nodes >= 8
    assert found.weights == 8
    assert "within one step" in " ".join(found.sentences)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("only", [None, "Conv"])
def test_any_format_and_part_passes(made: Made, signed: bool, only: str | None) -> None:
    nodes = [name for name in quantisable(made[0]) if only is None or only in name]
    certified(made, write_quantised(made[0], made[2], nodes, Format(signed, False))).require()


def one(array: np.ndarray) -> np.ndarray:
    """The array with its smallest entry 2 higher."""
    found = array.copy()
    found.reshape(-1)[np.argmin(np.abs(found))] += 2
    return found


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("w1_quantized", one, "steps off the float model's"),
        ("w2_quantized", lambda a: a[::-1], "steps off the float model's"),
        ("w3_scale", lambda a: a * 1.1, "steps off the float model's"),
        ("w3_zero_point", lambda a: a + 3, "steps off the float model's"),
        ("b1_quantized", lambda a: a + 50, "steps off the float model's"),
        ("b1_quantized_scale", lambda a: a * 1.05, "not that of the products"),
        ("a_relu_scale", lambda a: a * 2, "its range is"),
        ("a_relu_scale", lambda a: a / 2, "its range is"),
        ("s_zero_point", lambda a: a + 12, "its range is"),
        ("x_zero_point", lambda a: a - 12, "its range is"),
        ("x_scale", lambda a: a * 1.02, "not that of the products"),
    ],
)
def test_a_changed_number_is_noticed(
    made: Made, name: str, change: Callable[[np.ndarray], np.ndarray], said: str
) -> None:
    found = certified(made, changed(made, name, change))
    assert not found
    assert said in " ".join(found.sentences)
    with pytest.raises(VerificationError, match="not what it should be"):
        found.require()


def attribute(draft: Draft) -> None:
    node = next(node for node in draft.graph.node if node.name == "node0_Conv")
    next(a for a in node.attribute if a.name == "pads").CopyFrom(onnx.helper.make_attribute("pads", [0, 0, 2, 2]))


def operand(draft: Draft) -> None:
    node = next(node for node in draft.graph.node if node.op_type == "Add")
    node.input[0] = node.input[1]


def scale_of_one_reader(draft: Draft) -> None:
    node = next(node for node in draft.graph.node if node.op_type == "DequantizeLinear" and "a_relu" in node.input[0])
    other = draft.add_weight("other_scale", draft.weights[node.input[1]].array * np.float32(1.5))
    node.input[1] = other.name


@pytest.mark.parametrize(
    ("change", "said"),
    [(attribute, "other attributes"), (operand, "instead of"), (scale_of_one_reader, "another scale or zero point")],
)
def test_a_changed_graph_is_noticed(made: Made, change: Callable[[Draft], None], said: str) -> None:
    draft = made[1].edit()
    change(draft)
    assert said in " ".join(certified(made, draft.finish()).sentences)


def test_float_layers_that_onnxruntime_rounds_by_itself_are_noticed(made: Made) -> None:
    nodes = [name for name in quantisable(made[0]) if name != "node2_Conv"]
    found = certified(made, write_quantised(made[0], made[2], nodes, Format(False, False)))
    assert any("off in onnxruntime" in fault for fault in found.faults)
