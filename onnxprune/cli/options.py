"""Arguments and options that several commands share, and how their values are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxprune.cli.units import parse_quantity
from onnxprune.errors import UsageError

if TYPE_CHECKING:
    from onnxprune.ir.model import Model

ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX file.", show_default=False)]
OutputOption = Annotated[
    Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write the result.", show_default=False)
]
InputShapeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input-shape",
        metavar="[NAME=]1,3,224,224",
        help="Shape of an input whose dimensions are open; the name may be left out where there is one input. "
        "Repeatable.",
        show_default=False,
    ),
]
SplitOption = Annotated[
    str,
    typer.Option(
        help="Which part of an axis that a Reshape splits carries a removal: finest (the width of attention heads, "
        "usually) or outer (whole heads, whole groups)."
    ),
]
StateOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="IN=OUT",
        help="The output that is fed to an input in the next run (h0=hn), or auto for what names propose: their width "
        "may shrink, together. Repeatable.",
        show_default=False,
    ),
]
BUDGET = "Budget"
"""The panel of ``--help`` for what says how much is to go."""


def _most(name: str, text: str) -> Any:
    return typer.Option(
        name, parser=parse_quantity, metavar="5M", help=text, rich_help_panel=BUDGET, show_default=False
    )


ReduceOption = Annotated[
    float | None,
    typer.Option(metavar="0.5", help="Fraction of it to remove.", rich_help_panel=BUDGET, show_default=False),
]
MaxParamsOption = Annotated[float | None, _most("--max-params", "Most parameters left, like 300k.")]
MaxFlopsOption = Annotated[float | None, _most("--max-flops", "Most MACs left, like 1.2G.")]
MaxMemoryOption = Annotated[float | None, _most("--max-memory", "Most bytes of weights and output activations left.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Allow the output to replace an input.")]
NoVerifyOption = Annotated[
    bool, typer.Option("--no-verify", help="Write without checker, onnxruntime and certificate.")
]
AcceptUnwitnessedOption = Annotated[
    bool, typer.Option("--accept-unwitnessed", help="Write although no input can show some faults (they are named).")
]
VerifyMemoryOption = Annotated[
    str, typer.Option("--verify-memory", metavar="1G", help="Bytes that the certificate may take for tensors.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, to stdout.")]


@dataclass(frozen=True)
class Proof:
    """How a result is to be verified, if it is: ``memory`` in bytes."""

    asked: bool = True
    memory: int = 1 << 30
    accept_unwitnessed: bool = False


def proof(no_verify: bool, memory: str, accept_unwitnessed: bool) -> Proof:
    """The values of ``--no-verify``, ``--verify-memory`` and ``--accept-unwitnessed``."""
    return Proof(not no_verify, int(parse_quantity(memory)), accept_unwitnessed)


def input_shapes(given: Sequence[str] | None, model: Model) -> dict[str, tuple[int, ...]] | None:
    """The values of ``--input-shape``, None if there are none.

    Raises:
        UsageError: a value is no shape, or leaves open which input it is for.
    """
    if not given:
        return None
    shapes: dict[str, tuple[int, ...]] = {}
    for text in given:
        name, _, extents = text.rpartition("=")
        name = name or _only_input(model, text)
        try:
            shape = tuple(int(extent) for extent in extents.replace("x", ",").split(","))
        except ValueError:
            shape = ()
        if not shape or min(shape) < 1:
            raise UsageError(f"--input-shape '{text}' is not a shape; write it like {name}=1,3,224,224")
        if name in shapes:
            raise UsageError(f"--input-shape names input '{name}' twice")
        shapes[name] = shape
    return shapes


def carried_state(given: Sequence[str] | None) -> dict[str, str] | str | None:
    """The values of ``--state``, None if there are none.

    Raises:
        UsageError: a value is neither IN=OUT nor auto, or names an input twice.
    """
    if given and "auto" in given:
        if len(given) > 1:
            raise UsageError("--state auto takes what names propose; give it alone, or name all pairs")
        return "auto"
    pairs: dict[str, str] = {}
    for text in given or ():
        before, sign, after = text.partition("=")
        if not (before and sign and after):
            raise UsageError(f"--state '{text}' is not IN=OUT; write it like h0=hn, or auto")
        if before in pairs:
            raise UsageError(f"--state names input '{before}' twice")
        pairs[before] = after
    return pairs or None


def shapes_for_each(given: Sequence[str] | None, models: Sequence[Model]) -> list[dict[str, tuple[int, ...]] | None]:
    """The values of ``--input-shape`` for several models; a named one goes to those that have such an input.

    Raises:
        UsageError: as ``input_shapes``, or no model has the input.
    """
    names = [{value.name for value in model.graph.input} for model in models]
    for text in given or ():
        name = text.rpartition("=")[0]
        if name and not any(name in known for known in names):
            raise UsageError(f"no model has an input '{name}', which --input-shape '{text}' names")
    return [
        input_shapes([text for text in given or () if text.rpartition("=")[0] in ("", *known)], model)
        for known, model in zip(names, models, strict=True)
    ]


def _only_input(model: Model, text: str) -> str:
    names = [value.name for value in model.graph.input if value.name not in model.weights]
    if len(names) != 1:
        raise UsageError(
            f"--input-shape '{text}' does not say for which input; write NAME={text}. "
            f"The inputs are: {', '.join(names) or 'none'}"
        )
    return names[0]


def named_floors(given: Sequence[str] | None) -> Mapping[str, float]:
    """The values of ``--floors``.

    Raises:
        UsageError: one is not NAME=VALUE.
    """
    floors: dict[str, float] = {}
    for text in given or ():
        name, _, value = text.rpartition("=")
        try:
            floors[name] = float(value)
        except ValueError:
            name = ""
        if not name:
            raise UsageError(f"--floors '{text}' is not NAME=VALUE; write it like '/layer1/*=0.5' or '/conv1/Conv=16'")
    return floors
