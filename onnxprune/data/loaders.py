"""Data from a user's function: loaders of PyTorch, or any iterables of batches."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.data.batches import ArrayBatches, Batch, Batches, Data, Held, labels
from onnxprune.data.inputs import Fit, InputSpec, Scaling
from onnxprune.errors import DataError


@dataclass(frozen=True)
class LoaderBatches:
    """Batches as a loader gives them: their size is the loader's, and so is their order.

    Several processes take turns: batch b goes to process b modulo their number.
    """

    loader: Iterable[Any]
    inputs: tuple[InputSpec, ...]
    scaling: Scaling
    what: str

    def __len__(self) -> int:
        dataset: Any = getattr(self.loader, "dataset", self.loader)
        try:
            return len(dataset)
        except TypeError:
            raise DataError(f"the loader of {self.what} does not tell its length (__len__)") from None

    def iterate(self, size: int, *, seed: int | None = None, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
        for number, item in enumerate(self.loader):
            if number % ranks == rank:
                yield self._batch(item)

    def _batch(self, item: Any) -> Batch:
        values, targets = (item[0], item[1]) if isinstance(item, (tuple, list)) and len(item) == 2 else (item, None)
        by_name = values if isinstance(values, Mapping) else {self.inputs[0].name: values}
        missing = [spec.name for spec in self.inputs if spec.name not in by_name]
        if missing:
            raise DataError(f"a batch of {self.what} has nothing for the model's input '{missing[0]}'")
        arrays = {spec.name: _array(by_name[spec.name]) for spec in self.inputs}
        fitted = {
            spec.name: Fit(spec, arrays[spec.name].shape[1:], arrays[spec.name].dtype, self.scaling)(arrays[spec.name])
            for spec in self.inputs
        }
        count = len(next(iter(fitted.values())))
        for name, array in fitted.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise DataError(f"a batch of {self.what} (input '{name}') has NaN or infinite values")
        return Batch(fitted, None if targets is None else labels(_array(targets), count, self.what))


def _array(value: Any) -> NDArray[Any]:
    """A NumPy array of an array or a PyTorch tensor."""
    return np.asarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value)


def read_function(name: str, inputs: tuple[InputSpec, ...], scaling: Scaling, digest: str) -> Data:
    """What ``module:function`` returns: a loader, or a pair of them (train, test), or arrays (x, y).

    The module is looked for in the current folder, too, as ``python -m`` does.

    Raises:
        DataError: there is no such function, it fails, or returns something else.
    """
    returned = _function(name)()
    parts = returned if isinstance(returned, (tuple, list)) else (returned,)
    if not 1 <= len(parts) <= 2:
        raise DataError(f"{name}() returned {len(parts)} things; return a loader, or two: (train, test)")
    if all(isinstance(part, np.ndarray) for part in parts):
        return Data(_arrays(parts, inputs, scaling, name), None, digest=digest)
    batches = [_batches(part, inputs, scaling, f"{name}()") for part in parts]
    return Data(batches[0], batches[1] if len(batches) == 2 else None, digest=digest)


def _function(name: str) -> Callable[[], Any]:
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        raise DataError(f"data {name}: module '{error.name}' is not there") from error
    except AttributeError as error:
        raise DataError(f"data {name}: module '{module_name}' has no '{attribute}'") from error
    if not callable(found):
        raise DataError(f"data {name}: '{attribute}' is not a function")
    return lambda: _called(found, name)


def _called(function: Callable[[], Any], name: str) -> Any:
    try:
        return function()
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"data {name} failed with {type(error).__name__}: {error}") from error


def _batches(part: Any, inputs: tuple[InputSpec, ...], scaling: Scaling, what: str) -> Batches:
    if hasattr(part, "iterate"):
        found: Batches = part
        return found
    if not isinstance(part, Iterable) or isinstance(part, Iterator):
        raise DataError(f"{what} has to return loaders that can be gone through again and again, not {type(part)}")
    return LoaderBatches(part, inputs, scaling, what)


def _arrays(parts: Any, inputs: tuple[InputSpec, ...], scaling: Scaling, what: str) -> ArrayBatches:
    spec, samples = inputs[0], parts[0]
    targets = labels(parts[1], len(samples), what) if len(parts) == 2 else None
    fit = Fit(spec, samples.shape[1:], samples.dtype, scaling)
    return ArrayBatches({spec.name: Held(samples)}, {spec.name: fit}, targets, np.arange(len(samples)), what)
