"""Times of a model on one machine as a file, which other machines plan and split by."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from onnxprune.analysis.analyzing import Analysis
from onnxprune.errors import DataError, MeasurementError, UsageError
from onnxprune.ir.digest import model_digest
from onnxprune.ir.files import write_text
from onnxprune.ir.model import load
from onnxprune.ir.plain import is_number, parse
from onnxprune.ir.sampling import Rounds
from onnxprune.latency.machine import LocalMachine, Machine
from onnxprune.latency.model import LatencyProfile
from onnxprune.latency.profile import profile_latency
from onnxprune.pruning.options import AUTO

FORMAT, VERSION = "onnxprune.times", 1
#: What the machine's peaks are measured with: a product of square matrices, and a sum of some far beyond its caches.
_SIDE, _LARGE = 768, 4096
_FEW = Rounds(warmup=2, most=20, least=5, seconds=1.0)


@dataclass(frozen=True)
class Capacity:
    """What the machine reaches at best: multiply-accumulates, and bytes to and from memory, per second."""

    macs: float
    bandwidth: float


@dataclass(frozen=True)
class Times:
    """What a model takes on one machine; :func:`record_times` measures it.

    Attributes:
        digest: of the normalised model; times of another are refused.
        input_shapes: what it ran with.
        capacity: the machine's peaks.
        profile: seconds of the whole, of each node, and of layers at several widths; and the machine.
    """

    digest: str
    input_shapes: Mapping[str, tuple[int, ...]]
    capacity: Capacity
    profile: LatencyProfile

    def of(self, analysis: Analysis) -> LatencyProfile:
        """The profile, if it is of this model with these shapes. Raises UsageError where it is another's."""
        if self.digest != model_digest(analysis.model):
            raise UsageError("these times were recorded of another model; run 'onnxprune profile' with this one")
        shapes = {name: tuple(shape) for name, shape in analysis.shapes.binding.items()}
        if self.input_shapes != shapes:
            said = ", ".join(f"{name}={','.join(map(str, shape))}" for name, shape in self.input_shapes.items())
            raise UsageError(f"these times were recorded for other input shapes; give --input-shape {said}")
        return self.profile

    def to_dict(self) -> dict[str, Any]:
        """The content of the file."""
        profile = self.profile.to_dict()
        return {
            "format": FORMAT,
            "version": VERSION,
            "model": {"digest": self.digest, "input_shapes": {n: list(s) for n, s in self.input_shapes.items()}},
            "machine": profile.pop("identity"),
            "capacity": asdict(self.capacity),
            "seconds": profile.pop("baseline"),
            "nodes": dict(self.profile.nodes),
            "layers": {**profile, "tables": self.profile.tables_to_dict()},
        }

    @classmethod
    def from_dict(cls, data: Any) -> Times:
        """The times that the content of a file tells. Raises DataError."""
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            raise DataError("it holds no times; 'onnxprune profile' records them")
        if data.get("version") != VERSION:
            raise DataError(f"it is of version {data.get('version')!r}, this reads {VERSION}; record the times again")
        try:
            model, layers, capacity = data["model"], data["layers"], data["capacity"]
            shapes = {name: tuple(int(extent) for extent in shape) for name, shape in model["input_shapes"].items()}
            parts = {"identity": data["machine"], "baseline": data["seconds"], "nodes": data["nodes"], **layers}
            profile = LatencyProfile.from_dict(parts)
            peaks = Capacity(float(capacity["macs"]), float(capacity["bandwidth"]))
            numbers = (peaks.macs, peaks.bandwidth, profile.baseline.median)
            if not all(is_number(value) and value > 0 for value in numbers):
                raise ValueError("a time or a peak is not positive")
            return cls(str(model["digest"]), shapes, peaks, profile)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"it holds damaged times ({error}); record them again") from error

    def to_json(self) -> str:
        """The text of the file."""
        return json.dumps(self.to_dict(), indent=1) + "\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file, atomically. Raises OSError."""
        write_text(self.to_json(), Path(path))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Times:
        """Read a file. Raises DataError where there is none, or it holds no times."""
        try:
            return cls.from_dict(parse(Path(path).read_text(encoding="utf-8")))
        except OSError as error:
            raise DataError(f"cannot read {os.fspath(path)}: {error.strerror}") from error
        except ValueError as error:
            raise DataError(f"{os.fspath(path)} is no JSON ({error}); 'onnxprune profile' records times") from error
        except DataError as error:
            raise DataError(f"{os.fspath(path)}: {error}") from error


def record_times(
    model: Analysis,
    *,
    machine: Machine | None = None,
    round_to: int | str = AUTO,
    rounds: Rounds | None = None,
    seed: int = 0,
) -> Times:
    """Measure what a model takes here: the whole, its nodes, its layers at several widths, and the machine's peaks.

    Args:
        model: the analysis; its input shapes are those that are measured.
        machine: onnxruntime here with one thread, if not another.
        round_to: the multiple of channels at which layers are measured; see :func:`profile_latency`.
        rounds: how often and how long the whole model is measured.
        seed: of the random inputs.

    Raises:
        MeasurementError: the runtime does not run the model.
    """
    machine = machine or LocalMachine()
    profile = profile_latency(model, machine=machine, round_to=round_to, rounds=rounds, seed=seed)
    shapes = {name: tuple(shape) for name, shape in model.shapes.binding.items()}
    return Times(model_digest(model.model), shapes, measured_capacity(machine), profile)


def measured_capacity(machine: Machine) -> Capacity:
    """The peaks of a machine: a product of matrices, and a sum that reads and writes more than its caches hold."""
    product = _seconds(machine, "MatMul", _SIDE)
    total = _seconds(machine, "Add", _LARGE)
    return Capacity(_SIDE**3 / product, 3 * 4 * _LARGE**2 / total)


def _seconds(machine: Machine, op_type: str, side: int) -> float:
    """The quickest run of a node of two square matrices."""
    shape = (side, side)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "aby"]
    graph = helper.make_graph([helper.make_node(op_type, ["a", "b"], ["y"])], op_type, values[:2], values[2:])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    ones = np.ones(shape, np.float32)
    fastest = float(machine.rounds([load(proto)], {"a": ones, "b": ones}, _FEW).min())
    if fastest <= 0:
        raise MeasurementError("the clock is too coarse to measure this machine")
    return fastest


def schema() -> dict[str, Any]:
    """The JSON Schema of such files."""
    found: dict[str, Any] = json.loads(files("onnxprune.latency").joinpath("times.schema.json").read_text("utf-8"))
    return found
