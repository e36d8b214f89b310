"""Arguments and options that several commands share, and how their values are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import typer

from onnxprune.cli.units import parse_duration, parse_quantity, parse_share
from onnxprune.errors import UsageError
from onnxprune.pruning.options import Given, JobOptions, Kind, Option, PlanOptions, PromiseOptions, options_of

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
        metavar="SHAPE",
        help="1,3,224,224 where dimensions are open. NAME=1,3,224,224 where there are several inputs; repeatable.",
        show_default=False,
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Allow the output to replace an input.")]
ExternalDataOption = Annotated[
    str | None,
    typer.Option(
        metavar="one|SIZE",
        help="Weights go to data files beside the model: one, or several of at most SIZE (500M, 2G).",
        show_default=False,
        hidden=True,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, to stdout.")]


@dataclass(frozen=True)
class Offer:
    """That a command offers options of a class: all, or ``only`` those, with what differs in the command.

    Attributes:
        only: the names of the options, in the order of the help; none for all.
        panel: the panel of the help that shows them all.
        without: or all but these.
        plain: the names of those that are written as plain numbers.
        helps: texts that differ; ``""`` is that of all the others.
        defaults: defaults that differ.
        usual: the names of those that are rare elsewhere, and usual here.
        flags: names on the command line that differ, several with spaces between.
    """

    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    panel: str | None = None
    helps: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    usual: tuple[str, ...] = ()
    flags: Mapping[str, str] = field(default_factory=dict)

    def parameters(self, kind: type[Given]) -> list[Parameter]:
        """The parameters that typer reads."""
        said, defaults = options_of(kind), {f.name: f.default for f in fields(kind)}
        names = self.only or [n for n, option in said.items() if option.kind != "object" and n not in self.without]
        return [self._parameter(name, said[name], self.defaults.get(name, defaults[name])) for name in names]

    def _parameter(self, name: str, option: Option, default: Any) -> Parameter:
        if name in self.plain:
            option = replace(option, kind="plain", text=None, example=None)
        type_, parser = _READ[option.kind]
        if option.kind == "plain" and default is not None:
            type_ = type(default)
        value = default
        if type_ is bool:
            value = False
        elif option.kind != "plain":
            value = None if default is None else option.text
        said = typer.Option(
            *(self.flags.get(name, option.flag) or f"--{name.replace('_', '-')}").split(),
            parser=parser,
            metavar=option.example,
            min=option.least if option.kind == "plain" else None,
            help=self.helps.get(name, self.helps.get("", option.help)),
            rich_help_panel=self.panel or option.panel,
            show_default=value is not None or option.text or False,
            hidden=option.rare and name not in self.usual,
        )
        return Parameter(name, Parameter.KEYWORD_ONLY, default=value, annotation=Annotated[type_, said])

    def read(self, kind: type[Given], values: Mapping[str, Any]) -> Given:
        """The options that these values of the command line stand for. Raises UsageError."""
        said = options_of(kind)
        return kind(**{n: v if n in self.plain else _value(said[n], v) for n, v in values.items()})


_READ: Mapping[Kind, tuple[Any, Callable[[str], float] | None]] = {
    "plain": (str | None, None),
    "fraction": (float | None, None),
    "share": (float | None, parse_share),
    "quantity": (float | None, parse_quantity),
    "duration": (float | None, parse_duration),
    "names": (list[str] | None, None),
    "floors": (list[str] | None, None),
    "state": (list[str] | None, None),
    "rounding": (str, None),
}
"""The type that typer sees, and how it reads a value."""


def _value(option: Option, value: Any) -> Any:
    match option.kind:
        case "names":
            return tuple(value or ())
        case "floors":
            return named_floors(value)
        case "state":
            return carried_state(value)
        case "rounding":
            return int(value) if value.strip().isdecimal() else value.strip().lower()
        case "quantity" if value is not None and option.whole:
            return int(value)
    if option.flag is not None and option.flag.startswith("--no-"):
        return not value
    return value


def offering(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command all options of the parameters that are annotated with an :class:`Offer`."""
    hints = get_type_hints(command, include_extras=True)
    parameters: list[Parameter] = []
    offers: dict[str, tuple[Offer, type[Given], list[str]]] = {}
    for name, parameter in signature(command).parameters.items():
        offer = next((said for said in getattr(hints[name], "__metadata__", ()) if isinstance(said, Offer)), None)
        if offer is None:
            parameters.append(parameter.replace(annotation=hints[name], kind=Parameter.KEYWORD_ONLY))
            continue
        kind = get_args(hints[name])[0]
        offered = offer.parameters(kind)
        offers[name] = (offer, kind, [p.name for p in offered])
        parameters += offered

    @wraps(command)
    def called(**values: Any) -> None:
        for name, (offer, kind, names) in offers.items():
            values[name] = offer.read(kind, {option: values.pop(option) for option in names})
        command(**values)

    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    vars(called)["__signature__"] = Signature(parameters)
    return called


AllPlanOptions = Annotated[PlanOptions, Offer(without=("calibration",))]
AllJobOptions = Annotated[JobOptions, Offer()]
AllPromiseOptions = Annotated[PromiseOptions, Offer(without=("calibration",))]


def only(name: str) -> Any:
    """The annotation of one option of a plan, for commands that take it by itself."""
    return Offer((name,)).parameters(PlanOptions)[0].annotation


SplitOption = only("split")
StateOption = only("state")


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
