"""LiteRT (TensorFlow Lite), converted by onnx2tf, on the processor."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from onnxprune.ir.runtimes import Program, Shapes
from onnxprune.ir.runtimes.converting import beside, command, output_shapes, own_copy


class LiteRt:
    """What onnx2tf makes of the model, in single precision, with XNNPACK's kernels."""

    name = "litert"
    profiles = False

    def version(self) -> str:
        """As the package tells it."""
        from ai_edge_litert.interpreter import Interpreter  # noqa: F401

        version("onnx2tf")
        return version("ai-edge-litert")

    def compile(self, source: Path | bytes, shapes: Shapes, *, threads: int, profile: bool) -> Program:
        """See :class:`~onnxprune.ir.runtimes.Runtime`."""
        from ai_edge_litert.interpreter import Interpreter

        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            path = own_copy(source, folder)
            sizes = [f"{name}:{','.join(map(str, shape))}" for name, shape in shapes.items()]
            # As it is, not simplified by another package first, with the axes of the inputs where they are.
            options = ["-o", str(folder), "-n", "-nuo", "-ois", *sizes, "-kat", *shapes]
            command([beside("onnx2tf"), "-i", str(path), *options], folder)
            content = (folder / "model_float32.tflite").read_bytes()
            wanted = output_shapes(path, shapes)
        return _Program(Interpreter(model_content=content, num_threads=threads or None), shapes, wanted)


class _Program:
    def __init__(self, interpreter: Any, shapes: Shapes, wanted: Mapping[str, tuple[int, ...]]) -> None:
        self._interpreter = interpreter
        slots = interpreter.get_input_details()
        self._names = _matched({slot["name"]: tuple(slot["shape"]) for slot in slots}, shapes)
        for slot, name in zip(slots, self._names, strict=True):
            interpreter.resize_tensor_input(slot["index"], shapes[name])
        interpreter.allocate_tensors()
        self._inputs = [slot["index"] for slot in slots]
        ordered = sorted(interpreter.get_output_details(), key=lambda slot: _place(slot["name"]))
        self._outputs = [
            (slot["index"], _order(name, tuple(slot["shape"]), shape))
            for slot, (name, shape) in zip(ordered, wanted.items(), strict=True)
        ]

    def run(self, inputs: Mapping[str, Any]) -> list[Any]:
        for index, name in zip(self._inputs, self._names, strict=True):
            self._interpreter.set_tensor(index, inputs[name])
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index).transpose(order) for index, order in self._outputs]

    def nodes(self) -> list[tuple[str, str, float]]:
        return []


def _matched(slots: Mapping[str, tuple[int, ...]], shapes: Shapes) -> list[str]:
    """The inputs in the order of their slots, which are named after them, more or less; else by their shapes.

    Raises:
        RuntimeError: neither tells them apart.
    """

    def plain(name: str) -> str:
        return "".join(character for character in name if character.isalnum())

    def own(slot: str) -> str:
        return plain(slot.removeprefix("serving_default_").rsplit(":", 1)[0])

    for found in (
        [[name for name in shapes if plain(name) == own(slot)] for slot in slots],
        [[name for name in shapes if plain(name) in own(slot)] for slot in slots],
        [[name for name in shapes if tuple(shapes[name]) == shape] for shape in slots.values()],
        [list(shapes)] * len(slots),  # one input needs no telling apart
    ):
        few = [names[0] for names in found if len(names) == 1]
        if sorted(few) == sorted(shapes):
            return few
    raise RuntimeError(
        f"which of the inputs {', '.join(shapes)} LiteRT calls {', '.join(slots)} is told by neither names nor shapes; "
        "give the inputs names of which none holds another"
    )


def _place(name: str) -> int:
    """Where an output stands in the graph: PartitionedCall:1 and Identity_1 are the second ones."""
    number = re.search(r"[:_](\d+)$", name)
    return int(number[1]) if number else 0


def _order(name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, ...]:
    """How the axes of an output, which may come with the channels last, are brought into the graph's order.

    Raises:
        RuntimeError: its extents fit neither, or both.
    """
    axes = tuple(range(len(found)))
    last = (0, len(found) - 1, *axes[1:-1]) if len(found) > 2 else axes
    fitting = {order for order in (axes, last) if tuple(found[at] for at in order) == wanted}
    if len(fitting) != 1:
        raise RuntimeError(f"output '{name}' has the shape {found} there, which cannot be read as {wanted}")
    return fitting.pop()
