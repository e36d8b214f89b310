"""Model in and out: nothing lost, nothing copied without need, nothing half written."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from google.protobuf.message import Message
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.ir import saving
from onnxprune.ir.model import Draft, Model, load
from onnxprune.ir.weights import Weight


def small_model(ir_version: int = 8) -> ModelProto:
    """y = Relu(Conv(x, w) + c), with docs and metadata in every place people put them."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["conv"], name="conv", doc_string="first layer"),
        helper.make_node("Add", ["conv", "c"], ["sum"], name="add"),
        helper.make_node("Relu", ["sum"], ["y"], name="relu"),
    ]
    nodes[0].metadata_props.add(key="origin", value="layer1")
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, 6, 6])],
        [
            numpy_helper.from_array(rng.standard_normal((4, 3, 3, 3)).astype(np.float32), "w"),
            helper.make_tensor("c", TensorProto.FLOAT, [4, 1, 1], [1.0, 2.0, 3.0, 4.0]),
        ],
        doc_string="graph doc",
        value_info=[helper.make_tensor_value_info("conv", TensorProto.FLOAT, ["n", 4, 6, 6])],
    )
    graph.initializer[0].doc_string = "the filters"
    graph.metadata_props.add(key="graph", value="meta")
    model = helper.make_model(
        graph,
        ir_version=ir_version,
        opset_imports=[helper.make_opsetid("com.example", 3), helper.make_opsetid("", 17)],
        producer_name="a test",
        producer_version="1.2",
    )
    model.domain = "org.example"
    model.model_version = 42
    model.doc_string = "a model"
    model.metadata_props.add(key="names", value="{0: 'cat'}")
    return model


def fill(message: Message, depth: int = 0) -> None:
    """Set every field of a message, and of the messages in it, to something of its own."""
    for field in message.DESCRIPTOR.fields:
        if field.containing_oneof is not None and message.WhichOneof(field.containing_oneof.name):
            continue
        value = getattr(message, field.name)
        if isinstance(value, Message):
            if depth < 6:
                value.SetInParent()
                fill(value, depth + 1)
        elif hasattr(value, "extend"):
            if hasattr(value, "add"):
                for _ in range(2 if depth < 3 else int(depth < 6)):
                    fill(value.add(), depth + 1)
            else:
                value.extend(_samples(field, message))
        else:
            setattr(message, field.name, _samples(field, message)[0])


def _samples(field: Any, message: Message) -> list[Any]:
    if field.enum_type is not None:
        numbers = [value.number for value in field.enum_type.values if value.name != "EXTERNAL"]
        return numbers[-2:]
    return {
        field.CPPTYPE_STRING: [f"{field.name}-a", "b"] if field.type == field.TYPE_STRING else [b"\x00\xff", b"b"],
        field.CPPTYPE_FLOAT: [0.5, -2.0],
        field.CPPTYPE_DOUBLE: [0.25, -4.0],
    }.get(field.cpp_type, [7, 9])


@pytest.fixture
def full() -> ModelProto:
    """A model that uses every field of every message (it need not make sense)."""
    model = ModelProto()
    fill(model)
    for number, tensor in enumerate(model.graph.initializer):
        tensor.name = f"initializer-{number}"
    return model


def test_the_full_model_uses_every_field(full: ModelProto) -> None:
    def unused(message: Message) -> Iterator[str]:
        for field in message.DESCRIPTOR.fields:
            if field.containing_oneof is None and field.name not in {f.name for f, _ in message.ListFields()}:
                yield f"{message.DESCRIPTOR.name}.{field.name}"

    assert not list(unused(full))
    assert not list(unused(full.graph))
    assert not list(unused(full.graph.initializer[0]))
    assert not list(unused(full.graph.node[0]))
    assert not list(unused(full.graph.node[0].attribute[0]))
    assert not list(unused(full.training_info[0]))
    assert not list(unused(full.functions[0]))


def test_nothing_is_lost(full: ModelProto, tmp_path: Path) -> None:
    onnx.save(full, tmp_path / "in.onnx")
    model = load(tmp_path / "in.onnx")
    assert model.proto == full
    model.save(tmp_path / "out.onnx")
    assert onnx.load(tmp_path / "out.onnx") == full
    assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "in.onnx").read_bytes()
    assert model.file_size == (tmp_path / "out.onnx").stat().st_size


def test_nothing_is_lost_from_a_proto(full: ModelProto, tmp_path: Path) -> None:
    before = full.SerializeToString()
    model = load(full)
    assert model.proto == full
    model.edit().finish().save(tmp_path / "out.onnx")
    assert onnx.load(tmp_path / "out.onnx") == full
    assert full.SerializeToString() == before


def test_unknown_fields_are_kept(tmp_path: Path) -> None:
    proto = small_model()
    future = b"\xc2\x3e\x03abc"  # field 1000, a string
    proto.MergeFromString(future)
    proto.graph.MergeFromString(future)
    proto.graph.initializer[1].MergeFromString(future)
    data = proto.SerializeToString()
    assert data.count(future) == 3
    (tmp_path / "in.onnx").write_bytes(data)
    for model in (load(tmp_path / "in.onnx"), load(proto)):
        model.save(tmp_path / "out.onnx")
        assert (tmp_path / "out.onnx").read_bytes().count(future) == 3


def test_a_graph_in_two_parts_is_one(tmp_path: Path) -> None:
    proto = small_model()
    first, second = ModelProto(), ModelProto()
    first.CopyFrom(proto)
    del first.graph.node[1:]
    second.graph.node.extend(proto.graph.node[1:])
    (tmp_path / "in.onnx").write_bytes(first.SerializeToString() + second.SerializeToString())
    assert load(tmp_path / "in.onnx").proto == proto


ARRAYS = [
    np.arange(6, dtype=dtype).reshape(2, 3)
    for dtype in (
        *(np.float32, np.float64, np.float16, np.int8, np.int16, np.int32, np.int64),
        *(np.uint8, np.uint16, np.uint32, np.uint64, np.complex64, np.complex128),
        *(ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e4m3fnuz),
        *(ml_dtypes.float8_e5m2, ml_dtypes.float8_e5m2fnuz, ml_dtypes.float4_e2m1fn),
        *(ml_dtypes.int4, ml_dtypes.uint4),
    )
] + [
    np.array([[True, False]]),
    np.array(3.5, np.float32),
    np.zeros((0, 3), np.float32),
    np.array(["a", "bü"], dtype=object),
    np.arange(3, dtype=ml_dtypes.int4),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}-{a.shape}")
def test_every_type_of_weight(array: np.ndarray, tmp_path: Path) -> None:
    raw = numpy_helper.from_array(array, "w")
    raw.doc_string = "doc"
    raw.metadata_props.add(key="k", value="v")
    if array.dtype == object:
        values = [text.encode() for text in array]
    else:
        values = numpy_helper.to_array(raw).flatten().tolist()
    typed = helper.make_tensor("t", raw.data_type, array.shape, values)
    proto = helper.make_model(helper.make_graph([], "g", [], [], [raw, typed]))
    onnx.save(proto, tmp_path / "m.onnx")
    for model in (load(proto), load(tmp_path / "m.onnx")):
        for weight in model.weights.values():
            assert weight.shape == array.shape
            assert weight.size == array.size
            assert weight.elem_type == raw.data_type
            assert weight.nbytes == (0 if array.dtype == object else len(raw.raw_data))
            assert not weight.array.flags.writeable
            assert weight.array.dtype == array.dtype
            np.testing.assert_array_equal(weight.array, array)
        same = model.weights["w"].with_array(array)
        assert same.to_proto() == raw
        assert same.encoded_size == raw.ByteSize()
        np.testing.assert_array_equal(same.array, array)
        renamed = model.weights["t"].renamed("another")
        assert renamed.encoded_size == len(b"".join(renamed.chunks()))
        assert renamed.to_proto().name == "another"
        assert renamed.renamed("again").with_array(array).to_proto().name == "again"
        np.testing.assert_array_equal(numpy_helper.to_array(renamed.to_proto()), array)


def test_with_array_takes_any_layout() -> None:
    weight = Weight.from_array("w", np.arange(6, dtype=np.float32).reshape(2, 3).T)
    np.testing.assert_array_equal(weight.array, [[0, 3], [1, 4], [2, 5]])
    swapped = weight.with_array(np.arange(3, dtype=">i8"))
    np.testing.assert_array_equal(numpy_helper.to_array(swapped.to_proto()), [0, 1, 2])


def test_values_are_views(tmp_path: Path) -> None:
    onnx.save(small_model(), tmp_path / "m.onnx")
    array = load(tmp_path / "m.onnx").weights["w"].array
    assert not array.flags.owndata
    kept = np.ones((2, 2), np.float32)
    assert np.shares_memory(Weight.from_array("w", kept).array, kept)


@pytest.mark.parametrize("change", ["dims", "type", "missing values"])
def test_a_damaged_weight_says_so(change: str) -> None:
    proto = small_model()
    if change == "dims":
        proto.graph.initializer[0].dims[0] = 5
    elif change == "type":
        proto.graph.initializer[0].data_type = 99
    else:
        proto.graph.initializer[0].ClearField("raw_data")
    with pytest.raises(ModelError, match="tensor 'w'"):
        _ = load(proto).weights["w"].array


def test_opset() -> None:
    model = load(small_model())
    assert (model.opset(), model.opset("ai.onnx"), model.opset("com.example")) == (17, 17, 3)
    with pytest.raises(ModelError, match=r"com\.other"):
        model.opset("com.other")


def test_edits_leave_the_model_alone() -> None:
    model = load(small_model())
    before = model.to_proto()
    draft = model.edit()
    draft.graph.node[0].name = "changed"
    draft.weights["w"] = draft.weights["w"].with_array(np.zeros((2, 3, 3, 3), np.float32))
    draft.weights.pop("c")
    edited = draft.finish()
    assert model.to_proto() == before
    assert edited.proto.graph.initializer[0].doc_string == "the filters"
    assert list(edited.weights) == ["w"]


def test_unchanged_weights_are_shared() -> None:
    model = load(small_model())
    assert model.edit().finish().weights["w"] is model.weights["w"]


def test_draft_names() -> None:
    draft = load(small_model()).edit()
    assert draft.unique_name("new") == "new"
    assert [draft.unique_name(name) for name in ("w", "w", "x", "y", "new")] == [
        "w_1",
        "w_2",
        "x_1",
        "y_1",
        "new_1",
    ]
    draft.add_weight("b", np.zeros(3, np.float32))
    with pytest.raises(ModelError, match="'b'"):
        draft.add_weight("b", np.zeros(3, np.float32))


@pytest.mark.parametrize(("ir_version", "listed"), [(3, True), (4, False)])
def test_old_models_list_their_weights(ir_version: int, listed: bool) -> None:
    draft = Draft(load(small_model(ir_version)).skeleton, {})
    draft.add_weight("b", np.zeros((3, 1), np.float32))
    assert ("b" in [value.name for value in draft.graph.input]) is listed


def test_derived_is_computed_once() -> None:
    calls = []

    def names(model: Model) -> list[str]:
        calls.append(model)
        return list(model.weights)

    model = load(small_model())
    assert model.derived(names) is model.derived(names)
    assert calls == [model]


# Bad input


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"hello, this is no model\n", "is a text file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "is not an ONNX file"),
        (b"PK\x03\x04" + bytes(range(256)), "is not an ONNX file"),
        (ModelProto(ir_version=8).SerializeToString(), "holds no graph"),
        (small_model().graph.initializer[0].SerializeToString(), "ONNX"),
    ],
)
def test_bad_files(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=words) as caught:
        load(tmp_path / "m.onnx")
    assert "m.onnx" in str(caught.value)


def test_bad_paths(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        load(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="is a folder"):
        load(tmp_path)
    with pytest.raises(ModelError, match="no graph"):
        load(ModelProto())


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    data = small_model().SerializeToString()
    graph_end = data.rindex(b"\x42")  # opset imports follow the graph
    for length in [*range(1, 60), *range(60, graph_end - 40, 37)]:
        (tmp_path / "m.onnx").write_bytes(data[:length])
        with pytest.raises(ModelError):
            load(tmp_path / "m.onnx")


def test_random_bytes_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        (tmp_path / "m.onnx").write_bytes(rng.bytes(300))
        with pytest.raises(ModelError):
            load(tmp_path / "m.onnx")


def test_flipped_bytes_give_a_model_or_an_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = bytearray(small_model().SerializeToString())
    for _ in range(300):
        position = int(rng.integers(len(data)))
        flipped = data.copy()
        flipped[position] ^= 1 << int(rng.integers(8))
        (tmp_path / "m.onnx").write_bytes(flipped)
        try:
            load(tmp_path / "m.onnx").save(tmp_path / "out.onnx")
        except ModelError:
            continue


def test_two_weights_of_one_name() -> None:
    proto = small_model()
    proto.graph.initializer[1].name = "w"
    with pytest.raises(ModelError, match="two initialisers are named 'w'"):
        load(proto)


# Saving


def test_the_input_is_protected(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(small_model(), path)
    (tmp_path / "soft.onnx").symlink_to(path)
    os.link(path, tmp_path / "hard.onnx")
    model = load(path)
    for name in ("m.onnx", "soft.onnx", "hard.onnx"):
        with pytest.raises(ModelError, match="loaded from"):
            model.edit().finish().save(tmp_path / name)
    draft = model.edit()
    del draft.graph.node[2]
    draft.finish().save(path, overwrite_input=True)
    assert len(onnx.load(path).graph.node) == 2
    np.testing.assert_array_equal(model.weights["w"].array, numpy_helper.to_array(small_model().graph.initializer[0]))


def test_bad_targets(tmp_path: Path) -> None:
    model = load(small_model())
    for target in (tmp_path, Path(os.devnull), tmp_path / "no" / "m.onnx"):
        with pytest.raises(ModelError, match="cannot write"):
            model.save(target)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_failure_leaves_nothing_behind(error: BaseException, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "m.onnx").write_bytes(b"before")

    def fail(_: int) -> None:
        raise error

    monkeypatch.setattr(saving.os, "fsync", fail)
    with pytest.raises((KeyboardInterrupt, ModelError)):
        load(small_model()).save(tmp_path / "m.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert (tmp_path / "m.onnx").read_bytes() == b"before"


def test_saved_files_have_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    load(small_model()).save(tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").stat().st_mode == (tmp_path / "plain").stat().st_mode


# External data


@pytest.fixture
def external(tmp_path: Path) -> Path:
    proto = small_model()
    big = numpy_helper.from_array(np.arange(2000, dtype=np.float32), "big")
    proto.graph.initializer.append(big)
    path = tmp_path / "in" / "m.onnx"
    path.parent.mkdir()
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def test_external_data_stay_external(external: Path, tmp_path: Path) -> None:
    model = load(external)
    assert model.proto == onnx.load(external)
    model.save(tmp_path / "out.onnx")
    assert onnx.load(tmp_path / "out.onnx") == onnx.load(external)
    assert data_of(tmp_path / "out.onnx").stat().st_size == 8000
    draft = model.edit()
    draft.weights["big"] = draft.weights["big"].with_array(np.ones(1000, np.float32))
    draft.finish().save(tmp_path / "half.onnx")
    assert data_of(tmp_path / "half.onnx").stat().st_size == 4000
    reloaded = load(tmp_path / "half.onnx")
    np.testing.assert_array_equal(reloaded.weights["big"].array, np.ones(1000, np.float32))
    onnx.checker.check_model(str(tmp_path / "half.onnx"))


def data_of(path: Path) -> Path:
    """The data file that belongs to a saved model."""
    (data,) = path.parent.glob(f"{path.name}.????????????????.data")
    return data


@pytest.mark.parametrize("overwrite", [False, True])
def test_external_data_are_protected(external: Path, tmp_path: Path, overwrite: bool) -> None:
    model = load(external)
    data = external.with_name("weights.bin")
    before = data.read_bytes()
    os.link(data, tmp_path / "hard.onnx")
    for target in (data, tmp_path / "hard.onnx"):
        with pytest.raises(ModelError, match="holds what the model is made from"):
            model.save(target, overwrite_input=overwrite)
        assert target.read_bytes() == before


def test_a_model_beyond_protobufs_limit(tmp_path: Path) -> None:
    proto = small_model()
    proto.graph.initializer.append(numpy_helper.from_array(np.arange(2000, dtype=np.float32), "big"))
    model = load(proto)
    saving.save(model.skeleton, model.weights.values(), tmp_path / "m.onnx", (), limit=5000)
    assert (tmp_path / "m.onnx").stat().st_size < 5000
    assert [numpy_helper.to_array(t).sum() for t in onnx.load(tmp_path / "m.onnx").graph.initializer] == [
        numpy_helper.to_array(t).sum() for t in proto.graph.initializer
    ]


def test_missing_external_data(external: Path) -> None:
    data = external.with_name("weights.bin")
    content = data.read_bytes()
    data.write_bytes(content[:-1])
    with pytest.raises(ModelError, match=r"tensor 'big' wants file 'weights.bin' to hold 8000 bytes"):
        load(external)
    data.unlink()
    with pytest.raises(ModelError, match=r"weights missing: tensor 'w' wants file 'weights.bin'.* put it beside"):
        load(external)


@pytest.mark.parametrize("location", ["", "../secret", "/etc/hostname", "a/../../b", "\0", "a\0b", "x" * 300])
def test_external_data_stay_in_the_folder(location: str) -> None:
    proto = small_model()
    tensor = proto.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    with pytest.raises(ModelError, match="weights missing"):
        load(proto)


# onnx-graphsurgeon


@pytest.mark.parametrize("ir_version", [3, 8, 10])
def test_graphsurgeon_loses_nothing(ir_version: int) -> None:
    model = load(small_model(ir_version))
    back = model.with_graphsurgeon(model.to_graphsurgeon())
    assert back.proto == model.proto
    assert all(back.weights[name] is weight for name, weight in model.weights.items())


def test_graphsurgeon_edits_are_kept() -> None:
    model = load(small_model())
    graph = model.to_graphsurgeon()
    conv, add, relu = graph.nodes
    conv.attrs["dilations"] = [1, 1]
    add.inputs[1].values = add.inputs[1].values * 2
    relu.op = "Sigmoid"
    graph.tensors()["conv"].name = "renamed"
    graph.doc_string = "new doc"
    back = model.with_graphsurgeon(graph)
    assert back.skeleton.metadata_props == model.skeleton.metadata_props
    assert back.skeleton.ir_version == 8
    assert back.graph.doc_string == "new doc"
    assert [node.op_type for node in back.graph.node] == ["Conv", "Add", "Sigmoid"]
    assert back.graph.node[0].attribute[0].name == "dilations"
    assert back.weights["w"] is model.weights["w"]
    np.testing.assert_array_equal(back.weights["c"].array, model.weights["c"].array * 2)


def test_graphsurgeon_keeps_the_metadata_of_edited_nodes() -> None:
    model = load(small_model())
    graph = model.to_graphsurgeon()
    graph.nodes[0].attrs["dilations"] = [1, 1]
    back = model.with_graphsurgeon(graph)
    assert back.graph.node[0].metadata_props == model.graph.node[0].metadata_props
    assert back.graph.node[0].doc_string == "first layer"


def test_graphsurgeon_keeps_functions_and_subgraphs() -> None:
    body = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["t"], doc_string="inner")],
        "body",
        [],
        [onnx.ValueInfoProto(name="t")],
    )
    function = helper.make_function(
        "com.example",
        "F",
        ["a"],
        ["b"],
        [helper.make_node("Relu", ["a"], ["b"])],
        [helper.make_opsetid("", 17)],
    )
    function.metadata_props.add(key="k", value="v")
    proto = small_model()
    proto.functions.append(function)
    proto.graph.node.append(helper.make_node("If", ["cond"], ["z"], then_branch=body, else_branch=body))
    proto.graph.input.append(helper.make_tensor_value_info("cond", TensorProto.BOOL, []))
    model = load(proto)
    graph = model.to_graphsurgeon()
    assert model.with_graphsurgeon(graph).proto == proto
    graph.nodes[0].attrs["dilations"] = [1, 1]
    back = model.with_graphsurgeon(graph).proto
    assert back.functions == proto.functions
    assert back.graph.node[3] == proto.graph.node[3]
    assert back.graph.node[0].attribute[0].type == AttributeProto.INTS


# Cost

_MEASURE = """
import resource, sys, time
from onnxprune.ir.model import load
load(sys.argv[1])
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
model = load(sys.argv[2])
seconds = time.perf_counter() - start
model.save(sys.argv[3])
print(seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) * 1024)
"""


@pytest.mark.skipif(not hasattr(resource, "RUSAGE_SELF") or sys.platform != "linux", reason="ru_maxrss in kB")
def test_memory_and_time(tmp_path: Path) -> None:
    size = 100_000_000
    tensors = [numpy_helper.from_array(np.ones(size // 40, np.float32), f"w{i}") for i in range(10)]
    onnx.save(helper.make_model(helper.make_graph([], "g", [], [], tensors)), tmp_path / "big.onnx")
    onnx.save(small_model(), tmp_path / "small.onnx")
    paths = [str(tmp_path / name) for name in ("small.onnx", "big.onnx", "out.onnx")]
    output = subprocess.run([sys.executable, "-c", _MEASURE, *paths], capture_output=True, text=True, check=True)
    seconds, peak = map(float, output.stdout.split())
    assert seconds < 0.05
    assert peak < 1.2 * size
    assert (tmp_path / "out.onnx").stat().st_size == (tmp_path / "big.onnx").stat().st_size
