"""From a SPEC to data that fits a model."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.data.batches import ArrayBatches, Data, Held, RandomAccess, labels
from onnxprune.data.idx import read_idx
from onnxprune.data.images import ImageFiles, digest_of_files, image_shape, images_below
from onnxprune.data.inputs import Fit, InputSpec, inputs_of
from onnxprune.data.loaders import read_function
from onnxprune.data.spec import Spec, parse_spec
from onnxprune.errors import DataError, installing
from onnxprune.ir.model import ModelLike, as_model

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_INPUT_NAMES = ("x", "X", "images", "inputs", "input", "data")
_TARGET_NAMES = ("y", "Y", "labels", "targets", "target", "label")
_TEST_PARTS = ("test", "val", "valid", "validation")
_IDX = re.compile(r"(?P<part>.+?)[-_.](?P<kind>images|labels)[-_.]idx\d[-_.]\w+?(\.gz)?")


def read_data(spec: str, model: ModelLike | tuple[InputSpec, ...]) -> Data:
    """Read a data set and fit it to a model's inputs.

    Args:
        spec: ``SOURCE[?option=value&…]``. SOURCE is an ``.npz`` file (arrays x, y, or x_train, y_train, x_test,
            y_test, or by the names of the model's inputs), a folder of IDX files, a folder of images (sub-folders
            train and test, or classes, or just images), or ``module:function``. Options: ``mean`` and ``std`` (per
            channel, for images from 0 to 1), ``limit`` and ``test_limit`` (so many of a fixed shuffle), ``holdout``
            (fraction to evaluate with), ``size`` (of images, where the model takes any), ``augment`` (crop, flip, mix:
            calibration sees each image in 4, or ``views``, ways).
        model: the model, or its inputs.

    Raises:
        DataError: the source is missing, empty or damaged, or does not fit the model.
    """
    wanted = parse_spec(spec)
    inputs = model if isinstance(model, tuple) else inputs_of(as_model(model))
    if not inputs:
        raise DataError("the model takes no inputs")
    data = _read(wanted, spec, inputs)
    return _limited(data, wanted)


def is_function(spec: str) -> bool:
    """Whether a SPEC is a function, which is code that runs, and not a file or folder."""
    source = spec.partition("?")[0]
    return not Path(source).expanduser().exists() and _FUNCTION.fullmatch(source) is not None


def _read(wanted: Spec, text: str, inputs: tuple[InputSpec, ...]) -> Data:
    path = Path(wanted.source).expanduser()
    digest = hashlib.sha256(text.partition("?")[2].encode())
    if path.is_dir():
        idx = _idx_files(path)
        return _idx(idx, inputs, wanted, digest, path) if idx else _folder(path, inputs, wanted, digest)
    if path.is_file():
        return _npz(path, inputs, wanted, digest)
    if _FUNCTION.fullmatch(wanted.source):
        digest.update(text.encode())
        return read_function(wanted.source, inputs, wanted.scaling, digest.hexdigest())
    if wanted.source.partition(":")[0] == "synthetic":
        raise DataError("synthetic samples serve calibration; nothing can be learnt from them or judged by them")
    raise DataError(f"data {wanted.source} does not exist; give an .npz file, a folder, or module:function")


def _limited(data: Data, wanted: Spec) -> Data:
    train, test = data.train, data.test
    if not isinstance(train, ArrayBatches) or not (test is None or isinstance(test, ArrayBatches)):
        if wanted.limit or wanted.test_limit or wanted.holdout:
            raise DataError("limit, test_limit and holdout are for files and folders; let the function do that")
        return replace(data, views=wanted.views)
    if test is None and wanted.holdout:
        shuffled = np.random.default_rng(0).permutation(train.chosen)
        aside = min(max(round(len(shuffled) * wanted.holdout), 1), len(shuffled) - 1)
        train, test = train.part(np.sort(shuffled[aside:])), train.part(np.sort(shuffled[:aside]))
    if wanted.limit:
        train = _first(train, wanted.limit)
    if test is not None and wanted.test_limit:
        test = _first(test, wanted.test_limit)
    return Data(train, test, data.classes, data.digest, views=wanted.views)


def _first(batches: ArrayBatches, limit: int) -> ArrayBatches:
    shuffled = np.random.default_rng(0).permutation(batches.chosen)
    return batches.part(np.sort(shuffled[:limit]))


def _batches(
    arrays: Mapping[str, RandomAccess],
    shapes: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]],
    inputs: tuple[InputSpec, ...],
    targets: NDArray[Any] | None,
    wanted: Spec,
    what: str,
) -> ArrayBatches:
    count = len(next(iter(arrays.values())))
    if not count:
        raise DataError(f"{what} is empty")
    for name, samples in arrays.items():
        if len(samples) != count:
            raise DataError(f"{what}: input '{name}' has {len(samples)} samples, others have {count}")
    fits = {spec.name: Fit(spec, *shapes[spec.name], wanted.scaling) for spec in inputs}
    checked = None if targets is None else labels(targets, count, what)
    return ArrayBatches(arrays, fits, checked, np.arange(count), what)


def _held(
    arrays: Mapping[str, NDArray[Any]],
    inputs: tuple[InputSpec, ...],
    targets: NDArray[Any] | None,
    wanted: Spec,
    what: str,
) -> ArrayBatches:
    for name, array in arrays.items():
        if array.ndim == 0 or array.dtype.kind not in "fiub":
            raise DataError(f"{what}: the samples of '{name}' are no array of numbers, one per sample")
    shapes = {name: (array.shape[1:], array.dtype) for name, array in arrays.items()}
    return _batches({name: Held(array) for name, array in arrays.items()}, shapes, inputs, targets, wanted, what)


def _npz(path: Path, inputs: tuple[InputSpec, ...], wanted: Spec, digest: Any) -> Data:
    try:
        with path.open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
        with np.load(path, allow_pickle=False) as stored:
            if not isinstance(stored, np.lib.npyio.NpzFile):
                raise DataError(f"{path} is a single array; store x (and y) with numpy.savez")
            arrays = {name: stored[name] for name in stored.files}
    except DataError:
        raise
    except Exception as error:  # a damaged archive fails in as many ways as it has parts; or memory does not suffice
        raise DataError(f"data file {path} cannot be read as .npz: {error}") from error
    test = next((_part(arrays, inputs, part, wanted, path) for part in _TEST_PARTS if _has(arrays, part)), None)
    train = _part(arrays, inputs, "train" if _has(arrays, "train") else "", wanted, path)
    return Data(train, test, digest=digest.hexdigest())


def _has(arrays: Mapping[str, Any], part: str) -> bool:
    return any(name.endswith(f"_{part}") or name.startswith(f"{part}_") for name in arrays)


def _part(
    arrays: Mapping[str, NDArray[Any]], inputs: tuple[InputSpec, ...], part: str, wanted: Spec, path: Path
) -> ArrayBatches:
    def pick(names: Sequence[str]) -> NDArray[Any] | None:
        spelled = [(f"{n}_{part}", f"{part}_{n}") if part else (n, n) for n in names]
        return next((arrays[s] for pair in spelled for s in pair if s in arrays), None)

    common = _INPUT_NAMES if len(inputs) == 1 else ()
    found = {spec.name: pick((spec.name, *common)) for spec in inputs}
    if len(inputs) == 1 and len(arrays) == 1 and found[inputs[0].name] is None:
        found[inputs[0].name] = next(iter(arrays.values()))
    missing = [name for name, array in found.items() if array is None]
    if missing:
        raise DataError(
            f"{path} has no samples for the model's input '{missing[0]}'; name the array so, or 'x' if the model has "
            f"one input (there are: {', '.join(arrays) or 'none'})"
        )
    samples = {name: array for name, array in found.items() if array is not None}
    what = f"{path.name} ({part})" if part else path.name
    return _held(samples, inputs, pick(_TARGET_NAMES), wanted, what)


def _idx_files(folder: Path) -> dict[str, dict[str, Path]]:
    """IDX files by part (train, t10k, …) and kind (images, labels)."""
    found: dict[str, dict[str, Path]] = {}
    for file in sorted(folder.iterdir()):
        match = _IDX.fullmatch(file.name)
        if match:
            found.setdefault(match["part"], {}).setdefault(match["kind"], file)
    return {part: kinds for part, kinds in found.items() if "images" in kinds}


def _idx(
    files: Mapping[str, Mapping[str, Path]], inputs: tuple[InputSpec, ...], wanted: Spec, digest: Any, folder: Path
) -> Data:
    if len(inputs) != 1:
        raise DataError(f"IDX files feed one input; the model has {len(inputs)}")
    parts = {}
    for part, kinds in files.items():
        for kind in sorted(kinds):
            digest.update(kinds[kind].read_bytes())
        targets = read_idx(kinds["labels"]) if "labels" in kinds else None
        parts[part] = _held({inputs[0].name: read_idx(kinds["images"])}, inputs, targets, wanted, f"{folder} ({part})")
    train = parts.pop("train", None) or parts.pop(next(iter(parts)))
    return Data(train, next(iter(parts.values()), None), digest=digest.hexdigest())


def _folder(folder: Path, inputs: tuple[InputSpec, ...], wanted: Spec, digest: Any) -> Data:
    if len(inputs) != 1:
        raise DataError(f"a folder of images feeds one input; the model has {len(inputs)}")
    test_folder = next((folder / part for part in _TEST_PARTS if (folder / part).is_dir()), None)
    parted = (folder / "train").is_dir()
    train, classes = _images(folder / "train" if parted else folder, inputs[0], wanted, digest)
    test = None
    if parted and test_folder is not None:
        test, test_classes = _images(test_folder, inputs[0], wanted, digest)
        if test_classes != classes:
            raise DataError(f"{test_folder} and {folder / 'train'} do not have the same class folders")
    return Data(train, test, classes, digest.hexdigest())


def _images(folder: Path, spec: InputSpec, wanted: Spec, digest: Any) -> tuple[ArrayBatches, tuple[str, ...]]:
    files, numbers, classes = images_below(folder)
    if not files:
        raise DataError(f"folder {folder} has no images (and no IDX files); see that it is the right one")
    try:
        import PIL  # noqa: F401
    except ModuleNotFoundError as error:
        raise DataError(f"reading images takes Pillow; {installing('images')}") from error
    size, channels = image_shape(spec, wanted.size)
    samples = ImageFiles(files, size, channels)
    raw = size if channels == 1 else (*size, channels)
    digest.update(digest_of_files(files).encode())
    shapes = {spec.name: (raw, np.dtype(np.uint8))}
    return _batches({spec.name: samples}, shapes, (spec,), numbers, wanted, str(folder)), classes
