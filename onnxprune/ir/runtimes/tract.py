"""tract, on one thread of the processor."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from onnxprune.ir.runtimes import Program, Shapes, as_file


class Tract:
    """The model, optimised for inputs of its shapes."""

    name = "tract"
    profiles = False

    def version(self) -> str:
        """As the package tells it."""
        import tract  # noqa: F401

        return version("tract")

    def compile(self, source: Path | bytes, shapes: Shapes, *, threads: int, profile: bool) -> Program:
        """See :class:`~onnxprune.ir.runtimes.Runtime`."""
        import tract
        from tract.transform import SetSymbols

        if threads != 1:
            raise ValueError("it computes on one thread only")
        with as_file(source) as path:
            model = tract.onnx().load(str(path))
        names = [model.input_name(at) for at in range(model.input_count())]
        symbols: dict[str, int] = {}
        for at, name in enumerate(names):
            *extents, kind = str(model.input_fact(at)).split(",")
            # Where the file names an extent it may name it in inner tensors, too: the name is given its value below.
            named = {key: extent for key, extent in zip(extents, shapes[name], strict=False) if key.isidentifier()}
            symbols |= named
            if not named:
                model.set_input_fact(at, ",".join([*map(str, shapes[name]), kind]))
        typed = model.into_model()
        if symbols:
            typed.transform(SetSymbols(symbols))
        return _Program(typed.into_runnable(), names)


class _Program:
    def __init__(self, runnable: Any, names: list[str]) -> None:
        self._runnable, self._names = runnable, names

    def run(self, inputs: Mapping[str, Any]) -> list[Any]:
        return [value.to_numpy() for value in self._runnable.run([inputs[name] for name in self._names])]

    def nodes(self) -> list[tuple[str, str, float]]:
        return []
