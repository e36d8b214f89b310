"""Samples made from the model alone, for where there are none: ``synthetic[:N][?option=value]``.

Images begin as scenes (``data.scenes``) in the range that the input is taken to have. Where the file tells by its
BatchNormalization what layers saw in training, a :class:`Matcher` changes them until layers see the same.
"""

from __future__ import annotations

import hashlib
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxprune.data.batches import ArrayBatches, Data, Held
from onnxprune.data.images import image_shape
from onnxprune.data.inputs import Fit, InputSpec, Scaling, inputs_of
from onnxprune.data.samples import Samples
from onnxprune.data.scenes import scene
from onnxprune.data.spec import Spec, parse_spec
from onnxprune.data.statistics import channel_statistics
from onnxprune.errors import DataError
from onnxprune.ir.digest import model_digest
from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Model
from onnxprune.ir.shapes import infer_shapes
from onnxprune.ops.layers import affine

_SOURCE = re.compile(r"synthetic(:(?P<count>\d+))?")
#: Samples if the SPEC does not say how many, and the share that is added to compare with.
_COUNT, _ASIDE = 128, 0.25
_VERSION = 2
#: Samples that tell which range suits BatchNormalization.
_TRIALS = 16
_IMAGENET = Scaling((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_RANGES: Mapping[str, Scaling] = {
    "from 0 to 1": Scaling(),
    "from -1 to 1": Scaling((0.5,), (0.5,)),
    "as ImageNet is normalised": _IMAGENET,
    "from 0 to 255": Scaling((0.0,), (1 / 255,)),
}
#: What ONNX calls the ranges of pixels in a model's metadata.
_DECLARED = {
    "NominalRange_0_255": "from 0 to 255",
    "NominalRange_16_235": "from 0 to 255",
    "Normalized_0_1": "from 0 to 1",
    "Normalized_1_1": "from -1 to 1",
}


@dataclass(frozen=True)
class Seen:
    """What the input of a BatchNormalization was in training: its channels' means and standard deviations, [C]."""

    tensor: str
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]


class Matcher(Protocol):
    """Changes images until layers see what they saw in training."""

    def __call__(self, model: Model, images: NDArray[np.float32], how: Fit, seen: tuple[Seen, ...], seed: int) -> Any:
        """Images [N, C, H, W] from 0 to 1, which ``how`` turns into what the model takes, as others of that kind.

        Raises:
            ConversionError: there is no way to the model's gradients.
        """


def is_synthetic(spec: object) -> bool:
    """Whether a SPEC asks for samples made of nothing."""
    return isinstance(spec, str) and _SOURCE.fullmatch(spec.partition("?")[0]) is not None


def seen_in_training(model: Model) -> tuple[Seen, ...]:
    """What the BatchNormalizations of a (normalised) model tell of their inputs, in the order of the graph."""
    graph = Graph(model, infer_shapes(model))
    found = []
    for node in graph.nodes:
        one = affine(node)
        if one is None or not one.fixed or not one.held(one.mean, one.variance):
            continue
        mean, variance = (model.weights[node.inputs[i]].array.astype(np.float64) for i in (one.mean, one.variance))
        # A BatchNormalization that was never trained has seen nothing.
        if mean.any() or not (variance == 1).all():
            found.append(Seen(node.inputs[0], mean, np.sqrt(np.maximum(variance, 0) + one.epsilon)))
    return tuple(found)


def read_synthetic(text: str, model: Model, matcher: Matcher | None, folder: Path) -> Data:
    """Samples for the inputs of a (normalised) model; ``Data.made`` says of what.

    Args:
        text: ``synthetic[:N][?mean=…&std=…&size=…&seed=…]``: so many, and a quarter more to compare with; ``mean`` and
            ``std`` as for pictures from 0 to 1, if it is known what the model takes.
        model: the model.
        matcher: matches what BatchNormalizations have seen; None where there is none.
        folder: of what is kept: the same samples are not matched twice.

    Raises:
        DataError: the options are not known, or an input has open extents.
    """
    wanted = parse_spec(text)
    found = _SOURCE.fullmatch(wanted.source)
    assert found is not None, "is_synthetic has seen to it"
    if Path(wanted.source).exists():
        raise DataError(f"'{wanted.source}' is in this folder, too; write ./{wanted.source} to read it")
    if wanted.limit or wanted.test_limit or wanted.holdout:
        raise DataError("synthetic samples are as many as asked for: synthetic:N; no limit, test_limit or holdout")
    count = int(found["count"] or _COUNT)
    if count < 1:
        raise DataError("synthetic samples: at least 1")
    total = count + max(round(_ASIDE * count), 1)
    arrays, fits, made = {}, {}, []
    for spec in inputs_of(model):
        array, fit, how = _input(spec, model, wanted, total, matcher, folder)
        arrays[spec.name], fits[spec.name] = Held(array), fit
        made.append(how)
    everything = ArrayBatches(arrays, fits, None, np.arange(total), "the synthetic samples")
    train, test = everything.part(np.arange(count)), everything.part(np.arange(count, total))
    digest = hashlib.sha256(f"{text} {model_digest(model)}".encode()).hexdigest()
    return Data(train, test, digest=digest, made="; ".join(dict.fromkeys(made)), views=wanted.views)


def _input(
    spec: InputSpec, model: Model, wanted: Spec, total: int, matcher: Matcher | None, folder: Path
) -> tuple[NDArray[Any], Fit, str]:
    """Samples of one input, how they become what it takes, and of what they are made."""
    seed = wanted.seed
    try:
        size, channels = image_shape(spec, wanted.size)
    except DataError:
        if _may_be_image(spec):
            raise
        return _numbers(spec, model, total, seed)
    images = np.stack([scene(size, channels, np.random.default_rng((seed, i))) for i in range(total)])
    scaling, suited, seen = wanted.scaling, "", seen_in_training(model)
    if spec.dtype.kind != "f":
        suited = "from 0 to 255"
    elif not scaling.mean and not scaling.std:
        suited, scaling = _range(spec, model, images, seen)
    told = f", with values {suited}" if suited else ""
    what = "noise with structure"
    if matcher is not None and seen and spec.dtype.kind == "f" and len(inputs_of(model)) == 1:
        key = f"{_VERSION} {model_digest(model)} {total} {seed} {size} {scaling}"
        path = folder / "synthetic" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"
        kept = _kept(path, images.shape)
        if kept is None:
            kept = _pixels(matcher(model, images, _fit(spec, images, scaling), seen, seed))
            _keep(path, kept)
        return kept, _fit(spec, kept, scaling), f"statistics of {len(seen)} BatchNormalizations{told}"
    raw = _pixels(images)
    return raw, _fit(spec, raw, scaling), f"{what}{told}"


def _pixels(images: NDArray[Any]) -> NDArray[np.uint8]:
    return np.asarray(np.rint(np.clip(images, 0, 1) * 255), dtype=np.uint8)


def _fit(spec: InputSpec, images: NDArray[Any], scaling: Scaling) -> Fit:
    return Fit(spec, images.shape[1:], images.dtype, scaling)


def _may_be_image(spec: InputSpec) -> bool:
    return len(spec.sample) == 3 and bool({1, 3}.intersection((spec.sample[0], spec.sample[2])))


def _range(spec: InputSpec, model: Model, images: NDArray[np.float32], seen: tuple[Seen, ...]) -> tuple[str, Scaling]:
    """The range that the file declares, or that the first BatchNormalization knows best; else a usual one."""
    declared = {entry.key: entry.value for entry in model.skeleton.metadata_props}.get("Image.NominalPixelRange", "")
    if declared in _DECLARED:
        return _DECLARED[declared], _RANGES[_DECLARED[declared]]
    colour = images.shape[1] == 3
    ranges = {name: scaling for name, scaling in _RANGES.items() if colour or scaling is not _IMAGENET}
    if not seen or len(inputs_of(model)) > 1:
        usual = "as ImageNet is normalised" if colour else "from 0 to 1"
        return f"{usual} (a guess; give ?mean= and std= if it is another)", ranges[usual]
    strange: dict[str, float] = {}
    for name, scaling in ranges.items():
        inputs = {spec.name: _fit(spec, images, scaling)(images[:_TRIALS])}
        found = channel_statistics(model, Samples(inputs, None, spec.batch or _TRIALS), {seen[0].tensor: 1})
        if seen[0].tensor in found:
            got, want = found[seen[0].tensor], seen[0]
            off = np.square((got.mean - want.mean) / want.deviation)
            wide = np.log(np.maximum(np.sqrt(got.variance), 1e-6) / want.deviation)
            strange[name] = float(np.minimum(off, 100).mean() + np.square(wide).mean())
    best = min(strange or {"from 0 to 1": 0.0}, key=lambda name: strange.get(name, 0.0))
    return f"{best} (what the first BatchNormalization knows)", ranges[best]


def _numbers(spec: InputSpec, model: Model, total: int, seed: int) -> tuple[NDArray[Any], Fit, str]:
    """What is no image: indices of the table that they are read from, ones, or normally distributed numbers."""
    if any(extent is None for extent in spec.sample):
        raise DataError(
            f"input '{spec.name}' has open extents {spec.shape} and is no image: synthetic samples need fixed ones"
        )
    shape, rng = (total, *(extent or 1 for extent in spec.sample)), np.random.default_rng((seed, len(spec.name)))
    array: NDArray[Any]
    if spec.dtype.kind == "f":
        array, made = rng.standard_normal(shape).astype(np.float32), "normally distributed numbers"
    else:
        rows = [
            model.weights[node.input[0]].shape[0]
            for node in model.graph.node
            if node.op_type == "Gather" and node.input[1] == spec.name and node.input[0] in model.weights
        ]
        if rows:
            array, made = rng.integers(0, min(rows), shape), "random indices"
        else:
            array, made = np.ones(shape, dtype=np.int64), "ones"
        array = array.astype(spec.dtype)
    return array, _fit(spec, array, Scaling()), f"{made} for '{spec.name}'"


def _kept(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """What was matched before; a damaged file counts as absent."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            images = stored["images"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return images if images.shape == shape and images.dtype == np.uint8 else None


def _keep(path: Path, images: NDArray[np.uint8]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".part.npz")
        np.savez_compressed(draft, images=images)
        draft.replace(path)
    except OSError as error:
        warnings.warn(f"synthetic samples cannot be kept in {path.parent}: {error.strerror}", stacklevel=2)
