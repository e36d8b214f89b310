"""The options of planning, proving and repairing: name, type, default, range and help of each, defined once.

From the fields of these classes derive the keyword arguments of :func:`onnxprune.plan` and
:func:`onnxprune.compress`, the options of the command line, the settings of explorations, and those in plan files.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from onnxprune.errors import UsageError, unknown

if TYPE_CHECKING:
    from typing import Concatenate, ParamSpec

    from onnxprune.data.samples import CalibrationSource, Samples
    from onnxprune.ops import Registry

    _P = ParamSpec("_P")

_T = TypeVar("_T")
_M = TypeVar("_M")
_R = TypeVar("_R")

Kind = Literal["plain", "fraction", "share", "quantity", "duration", "names", "floors", "rounding", "state", "object"]
"""How a value is written on the command line; an ``object`` is for Python only."""
BUDGET, CHOICE, LIMITS, DATA = "Budget", "How to choose", "What must stay", "Calibration data"


@dataclass(frozen=True)
class Option:
    """What is said of an option besides its name, type and default.

    ``help`` begins with one short sentence, which is all that ``--help`` shows; a ``rare`` option is shown by
    ``--help-all`` alone. ``example`` shows how a value is written; ``flag`` is the option on the command line where it
    is not the name; ``text`` the default as it is written there; a ``whole`` quantity has no fraction. ``valid`` tells
    whether a value is in range, and ``must`` what range that is. ``recorded`` says whether a plan file tells the value
    even where it is the default.
    """

    help: str
    kind: Kind = "plain"
    example: str | None = None
    panel: str | None = None
    flag: str | None = None
    text: str | None = None
    least: int | None = None
    whole: bool = False
    valid: Callable[[Any], bool] | None = None
    must: str = ""
    choices: tuple[str, ...] = ()
    recorded: bool = False
    rare: bool = False

    def check(self, name: str, value: Any) -> None:
        """See that a value is in range. Raises UsageError."""
        if self.choices and value not in self.choices:
            raise UsageError(unknown(name, value, self.choices))
        if self.least is not None and not isinstance(value, str) and not value >= self.least:
            raise UsageError(f"{name} must be at least {self.least}, not {value}")
        if self.valid is not None and value is not None and not self.valid(value):
            raise UsageError(f"{name} must {self.must}, not {value}")


def defined(default: _T, help: str, *, hash: bool = True, **said: Any) -> _T:
    return dataclasses.field(default=default, hash=hash, metadata={"option": Option(help, **said)})


def fraction(help: str, example: str | None = "0.5") -> float | None:
    return defined(
        None,
        help,
        kind="fraction",
        example=example,
        panel=BUDGET,
        valid=lambda value: 0 < value < 1,
        must="be a fraction between 0 and 1",
    )


def most(help: str, kind: Kind = "quantity", example: str = "5M") -> float | None:
    return defined(
        None, help, kind=kind, example=example, panel=BUDGET, valid=lambda value: value > 0, must="be positive"
    )


def names(given: str | Sequence[str]) -> tuple[str, ...]:
    """A single name is meant as one, not as its letters."""
    return (given,) if isinstance(given, str) else tuple(given)


def words(given: str) -> tuple[str, ...]:
    """What commas separate."""
    return tuple(dict.fromkeys(word.strip() for word in given.split(",") if word.strip()))


def _differs(value: Any, default: Any) -> bool:
    """Whether an option is not as by default; arrays compare element by element."""
    found = value != default
    return bool(found.any()) if hasattr(found, "any") else bool(found)


@dataclass(frozen=True, kw_only=True)
class Given:
    """What planning, proving and repairing all take."""

    calibration: CalibrationSource | Samples | None = defined(
        None,
        "Samples: an .npz file, a folder, module:function, synthetic. Labels are not needed. They serve criteria, "
        "compensation and the comparison of outputs.",
        flag="--calibrate",
        example="SPEC",
        panel=DATA,
    )
    registry: Registry | None = defined(None, "The known operators, if not the default ones.", kind="object")

    def given(self) -> dict[str, Any]:
        """The options that are not as they are by default."""
        fields = dataclasses.fields(self)
        return {f.name: value for f in fields if _differs(value := getattr(self, f.name), f.default)}

    def __post_init__(self) -> None:
        for name, option in options_of(type(self)).items():
            option.check(name, getattr(self, name))


def options_of(kind: type[Given]) -> dict[str, Option]:
    """What is said of the options of a class, by name."""
    return {f.name: f.metadata["option"] for f in dataclasses.fields(kind) if "option" in f.metadata}


def as_words(kind: type[Given], values: Mapping[str, Any]) -> list[str]:
    """Options as they are written on the command line; what only Python takes, and what is not one, is left out."""
    words: list[str] = []
    for name, option in options_of(kind).items():
        value = values.get(name)
        flag = option.flag or f"--{name.replace('_', '-')}"
        if value is None:
            continue
        if name == "input_shapes":
            words += [w for key, s in value.items() for w in ("--input-shape", f"{key}={','.join(map(str, s))}")]
        elif option.kind == "object":
            continue
        elif isinstance(value, bool):
            words += [flag] if value != flag.startswith("--no-") else []
        elif isinstance(value, Mapping):
            words += [word for key, item in value.items() for word in (flag, f"{key}={item}")]
        elif isinstance(value, (list, tuple)):
            words += [word for item in value for word in (flag, str(item))]
        elif option.kind == "duration":
            words += [flag, f"{value}s"]
        elif option.kind == "quantity":
            words += [flag, str(int(value)) if value == int(value) else str(value)]
        else:
            words += [flag, str(value)]
    return words


def by_keyword(kind: Callable[_P, _T]) -> Callable[[Callable[[_M, _T], _R]], Callable[Concatenate[_M, _P], _R]]:
    """Make a function of a model and options one of a model and keyword arguments, which type checkers know."""

    def decorate(function: Callable[[_M, _T], _R]) -> Callable[Concatenate[_M, _P], _R]:
        @wraps(function)
        def called(model: _M, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
            return function(model, kind(*args, **kwargs))

        own, parameters = inspect.signature(function), inspect.signature(kind).parameters.values()
        first = next(iter(own.parameters.values()))
        signature = own.replace(parameters=[first.replace(kind=first.POSITIONAL_ONLY), *parameters])
        vars(called)["__signature__"] = signature
        called.__doc__ = _documented(inspect.getdoc(function) or "", options_of(cast(type[Given], kind)))
        return called

    return decorate


def _documented(text: str, options: Mapping[str, Option]) -> str:
    """A docstring whose ``Args`` go on with these options."""
    lines = [f"    {name}: {option.help.replace('--calibrate', 'calibration')}" for name, option in options.items()]
    return text.replace("\n\nRaises:", "\n" + "\n".join(lines) + "\n\nRaises:", 1)


def plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value
