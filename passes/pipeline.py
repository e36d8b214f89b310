"""Pipelines as compilers know them: passes with options, as text or as a TOML file.

    normalize, fold_batchnorm, prune{mode=flops reduce=0.5}, quantize{calibration="photos/"}

A pass is its name, and its options in braces: numbers, ``true`` and ``false``, words, quoted text, and lists of these
in brackets. A file says the same as ``[[pass]]`` tables, each with a ``name`` and its options.
"""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

from onnxprune.errors import PassError, UsageError
from onnxprune.ir.model import Model, ModelLike, as_model
from onnxprune.passes.base import Pass
from onnxprune.passes.manager import Check, PassManager, Watch
from onnxprune.passes.registry import find_pass, required

_TOKEN = re.compile(r"""\s*(?:(?P<quoted>"[^"]*"|'[^']*')|(?P<mark>[{}\[\],=])|(?P<word>[^\s{}\[\],="']+))""")
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?")


@dataclass(frozen=True)
class PassOption:
    """An option of a pass: its name, its type as Python writes it, its default if it has one, and what it does."""

    name: str
    type: str
    default: Any
    required: bool
    help: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        default = None if self.required else self.default
        plain = default if isinstance(default, (str, int, float, bool, NoneType)) else str(default)
        return {"name": self.name, "type": self.type, "default": plain, "required": self.required, "help": self.help}


@dataclass(frozen=True)
class Step:
    """One pass of a pipeline: its name and its options."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        if not self.options:
            return self.name
        return f"{self.name}{{{' '.join(f'{name}={_written(value)}' for name, value in self.options.items())}}}"

    def make(self) -> Pass:
        """The pass. Raises UsageError for an unknown pass or option, or a value that it does not take."""
        try:
            cls = find_pass(self.name)
        except PassError as error:
            raise UsageError(str(error)) from error
        _check(self, cls)
        try:
            return cls(**self.options)
        except UsageError as error:
            raise UsageError(f"pass '{self.name}': {error}") from error


@dataclass(frozen=True)
class Pipeline:
    """Passes with options, in order. ``str`` gives the text that :meth:`parse` reads."""

    steps: tuple[Step, ...]

    @classmethod
    def parse(cls, text: str) -> Pipeline:
        """The pipeline of a text. Raises UsageError where it is none; what passes it names is seen when it is made."""
        steps = tuple(_steps(_tokens(text)))
        if not steps:
            raise UsageError("the pipeline names no pass; 'onnxprune passes' lists them")
        return cls(steps)

    @classmethod
    def load(cls, path: str | Path) -> Pipeline:
        """The pipeline of a TOML file. Raises UsageError where it is none."""
        try:
            data = _toml(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} is no pipeline: {error}") from error
        tables = data.get("pass")
        if not isinstance(tables, list) or not tables or not all(isinstance(t.get("name"), str) for t in tables):
            raise UsageError(f"{path} is no pipeline: it has to hold [[pass]] tables, each with a name")
        if unknown := data.keys() - {"pass"}:
            raise UsageError(f"{path} is no pipeline: it also holds {', '.join(sorted(unknown))}")
        return cls(tuple(Step(t["name"], {k: v for k, v in t.items() if k != "name"}) for t in tables))

    def __str__(self) -> str:
        return ", ".join(map(str, self.steps))

    def make(self) -> tuple[Pass, ...]:
        """The passes. Raises UsageError for an unknown pass or option, or a value that it does not take."""
        return tuple(step.make() for step in self.steps)

    def run(self, model: ModelLike, check: Check = Check.NONE, watch: Watch | None = None) -> Model:
        """What the passes make of a model.

        Args:
            model: a Model, ModelProto or path.
            check: what is checked after every pass.
            watch: see :class:`~onnxprune.passes.manager.PassManager`.

        Raises:
            UsageError: see :meth:`make`.
            OnnxPruneError: a pass cannot do its work, or a check does not hold.
        """
        return PassManager(self.make(), check, watch=watch).run(as_model(model)).model


def options_of(cls: Callable[..., Pass]) -> tuple[PassOption, ...]:
    """The options of a pass that can be written as text."""
    hints, helps = _hints(cls), _helps(cls)
    found = []
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or not _readable(hints.get(name, Any)):
            continue
        required = parameter.default is parameter.empty
        found.append(PassOption(name, _named(hints.get(name, Any)), parameter.default, required, helps.get(name, "")))
    return tuple(found)


def writable(cls: Callable[..., Pass]) -> bool:
    """Whether text can say all that a pass needs."""
    return set(required(cls)) <= {option.name for option in options_of(cls)}


def _helps(cls: Callable[..., Pass]) -> dict[str, str]:
    """What the docstring of the constructor says of every argument, under ``Args``."""
    said = (inspect.getdoc(getattr(cls, "__init__", cls)) or "").partition("Args:")[2]
    entries = re.split(r"^\s*(\w+): ", said, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in zip(entries[1::2], entries[2::2], strict=True)}


def _check(step: Step, cls: type[Pass]) -> None:
    import difflib

    known = {option.name: option for option in options_of(cls)}
    hints = _hints(cls)
    for name, value in step.options.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=2)
            hint = f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(known) or 'none'}"
            raise UsageError(f"pass '{step.name}' has no option '{name}'; {hint}")
        if not _fits(value, hints.get(name, Any)):
            raise UsageError(f"option '{name}' of pass '{step.name}' takes {known[name].type}, not {_written(value)}")
    if unsaid := [name for name in required(cls) if name not in known]:
        raise UsageError(f"pass '{step.name}' wants {', '.join(unsaid)}, which text cannot give; use it from Python")
    if missing := [name for name in required(cls) if name not in step.options]:
        raise UsageError(f"pass '{step.name}' wants {', '.join(missing)}: write {step.name}{{{missing[0]}=…}}")


def _hints(cls: Callable[..., Pass]) -> Mapping[str, Any]:
    """The types of a pass's parameters."""
    parameters = inspect.signature(cls).parameters
    if all(not isinstance(parameter.annotation, str) for parameter in parameters.values()):
        return {n: Any if p.annotation is p.empty else p.annotation for n, p in parameters.items()}
    try:
        hints = typing.get_type_hints(getattr(cls, "__init__", cls))
    except NameError:
        # A type that is imported for type checking alone is none that text could give.
        hints = {}
    return {name: hints.get(name, _Opaque) for name in parameters}


class _Opaque:
    """A type that text cannot give."""


def _readable(hint: Any) -> bool:
    """Whether text can give a value of this type."""
    if hint is Any or hint in (str, int, float, bool):
        return True
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, UnionType):
        return any(_readable(one) for one in arguments if one is not NoneType)
    if origin is typing.Literal:
        return True
    return (
        isinstance(origin, type)
        and issubclass(origin, (Sequence, typing.Collection))
        and all(map(_readable, arguments))
    )


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin is typing.Literal:
        return value in arguments
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(hint, type) and origin is None:
        return isinstance(value, hint)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if isinstance(origin, type) and issubclass(origin, (Sequence, typing.Collection)):
        return isinstance(value, list) and all(_fits(one, arguments[0]) for one in value if arguments)
    return False


def _named(hint: Any) -> str:
    if isinstance(hint, type) and typing.get_origin(hint) is None:
        return hint.__name__
    if typing.get_origin(hint) in (typing.Union, UnionType):
        return " or ".join(_named(one) for one in typing.get_args(hint) if one is not NoneType and _readable(one))
    return str(hint).replace("typing.", "").replace("collections.abc.", "")


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise UsageError(f"the pipeline cannot be read at '{text[at : at + 20].strip()}': a quote is not closed")
        kind = str(match.lastgroup)
        tokens.append((kind, match[kind]))
        at = match.end()
    return [*tokens, ("end", "the end")]


def _steps(tokens: list[tuple[str, str]]) -> Iterator[Step]:
    stream = iter(tokens)
    kind, text = next(stream)
    while kind != "end":
        if kind != "word":
            raise UsageError(f"the pipeline wants the name of a pass before '{text}'")
        name, options = text, dict[str, Any]()
        kind, text = next(stream)
        if text == "{" and kind == "mark":
            options = _options(stream, name)
            kind, text = next(stream)
        yield Step(name, options)
        if kind == "end":
            return
        if text != ",":
            raise UsageError(f"the pipeline wants a comma before '{text}', behind pass '{name}'")
        kind, text = next(stream)


def _options(stream: Iterator[tuple[str, str]], of: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    while True:
        kind, name = next(stream)
        if (kind, name) == ("mark", "}"):
            return options
        if (kind, name) == ("mark", ","):
            continue
        if kind != "word" or next(stream)[1] != "=":
            raise UsageError(f"the options of pass '{of}' are written name=value, not '{name}'")
        if name in options:
            raise UsageError(f"pass '{of}' is given option '{name}' twice")
        options[name] = _value(stream, of, name)


def _value(stream: Iterator[tuple[str, str]], of: str, name: str) -> Any:
    kind, text = next(stream)
    if kind == "quoted":
        return text[1:-1]
    if kind == "word":
        return _plain(text)
    if text != "[":
        raise UsageError(f"option '{name}' of pass '{of}' has no value before '{text}'")
    values: list[Any] = []
    for kind, text in stream:
        if (kind, text) == ("mark", "]"):
            return values
        if kind in ("word", "quoted"):
            values.append(text[1:-1] if kind == "quoted" else _plain(text))
        elif text != ",":
            break
    raise UsageError(f"the list of option '{name}' of pass '{of}' is not closed by ']'")


def _plain(word: str) -> Any:
    if word in ("true", "false"):
        return word == "true"
    if _NUMBER.fullmatch(word):
        return float(word) if set(word) & set(".eE") else int(word)
    return word


def _written(value: Any) -> str:
    """A value as a pipeline writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, str) and (_TOKEN.fullmatch(value) is None or _plain(value) != value or '"' in value):
        return f"'{value}'" if '"' in value else f'"{value}"'
    return str(value)


def _toml(text: str) -> dict[str, Any]:
    # Part of Python from 3.11 on; before that, the same by its author.
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    found: dict[str, Any] = tomllib.loads(text)
    return found
