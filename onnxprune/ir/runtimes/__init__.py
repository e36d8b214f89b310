"""Engines other than onnxruntime, by name: one small module each, whose package is imported when it is asked for.

Another package lists its own in the entry-point group ``onnxprune.runtimes`` (any name = "module:Class").
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from onnxprune.errors import RegistryError, UsageError, installing, unknown

ENTRY_POINTS = "onnxprune.runtimes"
ONNXRUNTIME = "onnxruntime"
"""The engine that needs no module here."""

Shapes = Mapping[str, tuple[int, ...]]


class Program(Protocol):
    """A model that an engine has compiled."""

    def run(self, inputs: Mapping[str, Any]) -> list[Any]:
        """The outputs, in the graph's order."""

    def nodes(self) -> list[tuple[str, str, float]]:
        """Name, type of operator, and the seconds that all runs together spent there, in the order of execution.

        The type is ONNX's word where there is one. Only where the program was compiled with ``profile``.
        """


class Runtime(Protocol):
    """What an engine has to offer.

    Attributes:
        name: what it is called on the command line.
        profiles: whether it tells the time of single nodes, which latency mode needs.
    """

    name: str
    profiles: bool

    def version(self) -> str:
        """The installed version. Raises ImportError where it is not installed."""

    def compile(self, source: Path | bytes, shapes: Shapes, *, threads: int, profile: bool) -> Program:
        """A model of a file, or a serialised one, made ready for inputs of these shapes.

        Args:
            source: the file or the message.
            shapes: of every input.
            threads: 0 leaves it to the engine.
            profile: whether single nodes are timed.
        """


def _openvino() -> Runtime:
    from onnxprune.ir.runtimes.openvino import OpenVino

    return OpenVino()


def _iree() -> Runtime:
    from onnxprune.ir.runtimes.iree import Iree

    return Iree()


def _litert() -> Runtime:
    from onnxprune.ir.runtimes.litert import LiteRt

    return LiteRt()


def _ncnn() -> Runtime:
    from onnxprune.ir.runtimes.ncnn import Ncnn

    return Ncnn()


def _tract() -> Runtime:
    from onnxprune.ir.runtimes.tract import Tract

    return Tract()


def _tvm() -> Runtime:
    from onnxprune.ir.runtimes.tvm import Tvm

    return Tvm()


_OWN: Mapping[str, Callable[[], Runtime]] = MappingProxyType(
    {"iree": _iree, "litert": _litert, "ncnn": _ncnn, "openvino": _openvino, "tract": _tract, "tvm": _tvm}
)


@contextmanager
def as_file(source: Path | bytes) -> Iterator[Path]:
    """A file with the model: the given one, or one that is there for a while."""
    if isinstance(source, Path):
        yield source
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(source)
        yield path


def names() -> tuple[str, ...]:
    """What may be asked for, onnxruntime first."""
    others = {*_OWN, *(entry.name for entry in entry_points(group=ENTRY_POINTS))}
    return (ONNXRUNTIME, *sorted(others))


@cache
def runtime(name: str) -> Runtime:
    """An engine by name.

    Raises:
        UsageError: there is none of that name, or it is not installed; the message tells what to do.
        RegistryError: another package's cannot be loaded.
    """
    found = _OWN[name]() if name in _OWN else _plugged(name)
    try:
        found.version()
    except ImportError as error:
        raise UsageError(f"{name} is not installed ({error}); {installing(name)}") from error
    return found


def _plugged(name: str) -> Runtime:
    for entry in entry_points(group=ENTRY_POINTS, name=name):
        try:
            made: Runtime = entry.load()()
        except Exception as error:
            raise RegistryError(
                f"entry point {name!r} = {entry.value!r} of group {ENTRY_POINTS} cannot be loaded ({error}); mend or "
                "uninstall its package"
            ) from error
        return made
    raise UsageError(unknown("runtime", name, names()))


class Session:
    """A model in an engine, which compiles it when the first inputs tell their shapes; called as onnxruntime's is."""

    def __init__(self, engine: Runtime, source: Path | bytes, threads: int, *, profile: bool = False) -> None:
        self._engine, self._source, self._threads, self._profile = engine, source, threads, profile
        self._programs: dict[tuple[tuple[str, tuple[int, ...]], ...], Program] = {}

    def run(self, outputs: None, inputs: Mapping[str, Any]) -> list[Any]:
        """All outputs, in the graph's order."""
        return self.program(inputs).run(inputs)

    def program(self, inputs: Mapping[str, Any]) -> Program:
        """What was compiled for inputs of these shapes."""
        shapes = {name: tuple(array.shape) for name, array in inputs.items()}
        key = tuple(shapes.items())
        if key not in self._programs:
            self._programs[key] = self._engine.compile(
                self._source, shapes, threads=self._threads, profile=self._profile
            )
        return self._programs[key]
