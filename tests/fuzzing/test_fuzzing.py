"""Hostile files: whatever is in them, they are refused in words, nothing is left behind, and it comes to an end.

A few hundred files that are always the same by default; ``ONNXPRUNE_FUZZ_SECONDS=1800`` takes that long for new ones.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto

from tests.fuzzing.originals import original
from tests.fuzzing.worker import PROPERTIES

SECONDS = float(os.environ.get("ONNXPRUNE_FUZZ_SECONDS", "0"))
EXAMPLES = 30
"""Per kind, without a time."""
LONGEST = 120.0
"""Seconds that one small file may take, on a busy machine."""


class Worker:
    """The process that is given files; begun again after it died."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def give(self, kind: str, content: bytes) -> dict[str, Any]:
        """What became of a file."""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        name = kind.encode()
        process.stdin.write(struct.pack("<II", len(name), len(content)) + name + content)
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], LONGEST)
        line = process.stdout.readline() if ready else b""
        if line:
            found: dict[str, Any] = json.loads(line)
            return found
        self.close()
        end = self._log.read_text(errors="replace")[-2000:]
        return {"said": "", "fault": f"died with {process.returncode}: {end}" if ready else f"no end: {end}"}

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", "-m", "tests.fuzzing.worker"],
                cwd=Path(__file__).parents[2],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log.open("wb"),
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        return self._process

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    found = Worker(tmp_path_factory.mktemp("log") / "stderr")
    yield found
    found.close()


# Files

INTERESTING = [0, 1, 2, 127, 128, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, -1, -(2**31), -(2**63)]


@st.composite
def bytes_like(draw: st.DrawFn, kind: str) -> bytes:
    """A good file in which a few bytes are others, more, or fewer."""
    data = bytearray(original(kind))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        how = draw(st.sampled_from(["flip", "set", "cut", "insert", "copy", "end"]))
        if how == "flip":
            data[at : at + 1] = bytes(byte ^ (1 << draw(st.integers(0, 7))) for byte in data[at : at + 1])
        elif how == "set":
            data[at : at + 4] = draw(st.binary(min_size=1, max_size=8))
        elif how == "cut":
            del data[at : at + draw(st.integers(1, 64))]
        elif how == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=16))
        elif how == "copy":
            source = draw(st.integers(0, max(len(data) - 1, 0)))
            data[at:at] = data[source : source + draw(st.integers(1, 200))]
        else:
            del data[at:]
    return bytes(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.sampled_from(INTERESTING) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def plans(draw: st.DrawFn) -> bytes:
    """A good plan in which some part is another."""
    data = json.loads(original("plan"))
    for _ in range(draw(st.integers(1, 3))):
        place: Any = data
        while isinstance(place, (dict, list)) and place:
            keys = sorted(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw(st.sampled_from(keys))
            inner = place[key]
            if not isinstance(inner, (dict, list)) or not inner or draw(st.integers(0, 2)) == 0:
                how = draw(st.sampled_from(["value", "key", "gone"]))
                if how == "value" or isinstance(place, list):
                    place[key] = draw(JSON)
                elif how == "key":
                    place[draw(st.text(max_size=6))] = place.pop(key)
                else:
                    del place[key]
                break
            place = inner
    return json.dumps(data).encode("utf-8", "surrogatepass")


@st.composite
def models(draw: st.DrawFn) -> bytes:
    """A good model in which some fields are others: still a model to protobuf."""
    proto = ModelProto()
    proto.ParseFromString(original("model"))
    for _ in range(draw(st.integers(1, 4))):
        how = draw(st.sampled_from(["node", "attribute", "weight", "value", "edge", "drop", "double", "opset"]))
        node: NodeProto = draw(st.sampled_from(list(proto.graph.node))) if proto.graph.node else proto.graph.node.add()
        number = draw(st.sampled_from(INTERESTING) | st.integers(0, 16))
        if how == "node":
            kinds = [
                "Conv",
                "Gemm",
                "Concat",
                "Split",
                "Transpose",
                "Tile",
                "Expand",
                "ConstantOfShape",
                "Loop",
                "Q",
                "",
            ]
            node.op_type = draw(st.sampled_from(kinds))
        elif how == "attribute":
            attribute = draw(st.sampled_from(list(node.attribute))) if node.attribute else node.attribute.add()
            attribute.name = draw(st.sampled_from(["pads", "axis", "group", "strides", "perm", attribute.name]))
            attribute.i = number
            attribute.ints.append(number)
            attribute.type = draw(st.sampled_from([1, 2, 3, 6, 7, attribute.type]))
        elif how == "weight":
            tensor = draw(st.sampled_from(list(proto.graph.initializer)))
            part = draw(st.sampled_from(["dims", "more", "type", "values", "external", "integers"]))
            if part == "dims" and tensor.dims:
                tensor.dims[draw(st.integers(0, len(tensor.dims) - 1))] = number
            elif part == "more":
                tensor.dims.append(number)
            elif part == "type":
                tensor.data_type = draw(st.integers(0, 30))
            elif part == "values":
                tensor.raw_data = draw(st.binary(max_size=64))
            elif part == "integers" and tensor.data_type == TensorProto.INT64:
                count = len(tensor.raw_data) // 8
                values = [draw(st.sampled_from(INTERESTING[:-2])) % 2**63 for _ in range(count)]
                tensor.raw_data = struct.pack(f"<{count}Q", *values)
            else:
                tensor.data_location = TensorProto.EXTERNAL
                location = draw(st.sampled_from(["model.npz", "../x", "/etc/hostname", "", ".", "a\0b", "x" * 300]))
                for key, value in (("location", location), ("offset", number), ("length", draw(st.integers(-1, 99)))):
                    tensor.external_data.add(key=key, value=str(value))
        elif how == "value":
            value = draw(st.sampled_from([*proto.graph.input, *proto.graph.output]))
            dim = value.type.tensor_type.shape.dim.add() if draw(st.booleans()) else value.type.tensor_type.shape.dim[0]
            dim.dim_value = number
            value.type.tensor_type.elem_type = draw(st.sampled_from([1, 1, 1, 7, 8, 10, 99]))
        elif how == "edge":
            names = [name for each in proto.graph.node for name in (*each.input, *each.output)]
            if draw(st.booleans()) and node.input:
                node.input[draw(st.integers(0, len(node.input) - 1))] = draw(st.sampled_from([*names, ""]))
            elif node.output:
                node.output[0] = draw(st.sampled_from([*names, ""]))
        elif how == "drop":
            del proto.graph.node[draw(st.integers(0, len(proto.graph.node) - 1)) :][:1]
        elif how == "double":
            proto.graph.node.add().CopyFrom(node)
        else:
            proto.opset_import[0].version = draw(st.sampled_from([-1, 0, 1, 7, 11, 13, 18, 23, 99, 2**63 - 1]))
            proto.ir_version = draw(st.sampled_from([0, 3, 4, 8, 10, 99]))
    return proto.SerializeToString()


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """A good table in which some values are others."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t"
        path.write_bytes(original("table"))
        connection = sqlite3.connect(path)
        try:
            for _ in range(draw(st.integers(1, 3))):
                name = draw(st.sampled_from(["runs", "runs", "about", "plans"]))
                columns = [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]
                text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
                whole = st.integers(-(2**63), 2**63 - 1)
                value = draw(st.none() | whole | st.floats() | text | st.binary(max_size=8) | JSON.map(json.dumps))
                column, row = draw(st.sampled_from(columns)), draw(st.integers(1, 8))
                connection.execute(f'UPDATE OR IGNORE {name} SET "{column}" = ? WHERE rowid = ?', (value, row))
            connection.commit()
        except sqlite3.Error:
            pass
        finally:
            connection.close()
        return path.read_bytes()


FILES: dict[str, st.SearchStrategy[bytes]] = {
    "model": bytes_like("model") | models(),
    "plan": bytes_like("plan") | plans(),
    "table": bytes_like("table") | tables(),
    "npz": bytes_like("npz"),
    "checkpoint": bytes_like("checkpoint"),
}


@pytest.mark.parametrize("kind", FILES)
def test_hostile_files(worker: Worker, kind: str, record_property: Callable[[str, object], None]) -> None:
    count = accepted = 0
    end = time.monotonic() + SECONDS / len(FILES)

    def check(content: bytes) -> None:
        nonlocal count, accepted
        found = worker.give(kind, content)
        count, accepted = count + 1, accepted + (not found["said"])
        assert not found["fault"], found["fault"]

    common = settings(
        max_examples=200 if SECONDS else EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    fresh = int.from_bytes(os.urandom(4), "little") if SECONDS else 0
    for number in itertools.count(fresh):
        hypothesis.seed(number)(common(hypothesis.given(FILES[kind])(check)))()
        if time.monotonic() >= end:
            break
    record_property("files", count)
    print(f"{kind}: {count} files, {accepted} accepted")
    assert 0 < accepted < count, "files that are all refused, or none, test little"


@pytest.mark.parametrize("kind", FILES)
def test_the_good_files_are_accepted(worker: Worker, kind: str) -> None:
    assert kind in PROPERTIES
    assert worker.give(kind, original(kind)) == {"said": "", "fault": ""}


def test_faults_are_noticed(worker: Worker) -> None:
    assert "KeyError" in worker.give("no such kind", b"")["fault"]
