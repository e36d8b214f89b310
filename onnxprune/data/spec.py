"""The text that names a data set: ``SOURCE[?option=value&option=value]``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from urllib.parse import parse_qsl

from onnxprune.data.augmenting import PLAIN, Views, parse_augmentations
from onnxprune.data.inputs import Scaling
from onnxprune.errors import DataError, UsageError, unknown

_OPTIONS = ("mean", "std", "limit", "test_limit", "holdout", "size", "seed", "augment", "views")

#: Views of each image where it is said how to see it, and not how often.
_VIEWS = 4


@dataclass(frozen=True)
class Spec:
    """What a SPEC says.

    ``source`` is a path or ``module:function``; ``limit`` and ``test_limit`` keep that many samples of a fixed
    shuffle, ``holdout`` sets a fraction of the samples aside for evaluation where the source has no such part,
    ``size`` is (height, width) to bring images to, ``seed`` that of synthetic samples,
    ``views`` what calibration sees of each image.
    """

    source: str
    scaling: Scaling
    limit: int | None
    test_limit: int | None
    holdout: float
    size: tuple[int, int] | None
    seed: int = 0
    views: Views = PLAIN


def parse_spec(text: str) -> Spec:
    """Read a SPEC. Raises DataError for options that do not exist or do not parse."""
    source, mark, query = text.partition("?")
    if not source:
        raise DataError("the data SPEC is empty; give an .npz file, a folder, or module:function")
    options = dict(parse_qsl(query, keep_blank_values=True, separator="&"))
    strange = [name for name in options if name not in _OPTIONS]
    if strange or (mark and query and not options):
        raise DataError(unknown("data option", (strange or [query])[0], _OPTIONS))
    try:
        scaling = Scaling(_floats(options.get("mean", "")), _floats(options.get("std", "")))
        limit, test_limit = (_count(options.get(name)) for name in ("limit", "test_limit"))
        holdout = float(options.get("holdout", "0"))
        size = _size(options.get("size"))
        seed = int(options.get("seed", "0"))
        views = _views(options.get("augment"), options.get("views"))
    except (ValueError, UsageError) as error:
        raise DataError(f"the data options '{query}' cannot be read: {error}") from error
    if any(value == 0 for value in scaling.std):
        raise DataError("std must not be 0")
    if not 0 <= holdout < 1:
        raise DataError(f"holdout must be a fraction below 1, not {holdout}")
    if seed < 0:
        raise DataError(f"seed must be at least 0, not {seed}")
    return Spec(source, scaling, limit, test_limit, holdout, size, seed, views)


def _views(augment: str | None, views: str | None) -> Views:
    how = parse_augmentations(augment or "none")
    count = _count(views)
    if count is not None and count > 1 and not how:
        raise ValueError("several views take a way to see a picture otherwise: augment=crop,flip,mix or some of it")
    return Views(how, count or (_VIEWS if how else 1))


def _floats(text: str) -> tuple[float, ...]:
    values = tuple(float(part) for part in text.split(",") if part.strip())
    if not all(math.isfinite(value) for value in values):
        raise ValueError("mean and std must be finite")
    return values


def _count(text: str | None) -> int | None:
    if text is None:
        return None
    value = int(text)
    if value < 1:
        raise ValueError("a limit must be at least 1")
    return value


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, mark, width = text.partition("x")
    size = int(height), int(width if mark else height)
    if min(size) < 1:
        raise ValueError("size must be positive, like 224 or 224x320")
    return size
