"""Data SPECs: what comes out has the model's layout and type, and what does not fit is refused with a reason."""

from __future__ import annotations

import gzip
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxprune.data import DataError, InputSpec, inputs_of, read_data
from onnxprune.ir.model import load

FLOAT = np.dtype(np.float32)
NCHW = (InputSpec("x", (None, 1, 6, 5), FLOAT),)
NHWC = (InputSpec("x", (None, 6, 5, 1), FLOAT),)
RGB = (InputSpec("x", (None, 3, 6, 5), FLOAT),)
GREY = np.random.default_rng(0).integers(0, 256, (20, 6, 5), dtype=np.uint8)
LABELS = np.arange(20) % 4


def _npz(folder: Path, **arrays: np.ndarray) -> str:
    np.savez(folder / "data.npz", **arrays)
    return str(folder / "data.npz")


def _all(batches, size=7, **options):
    found = list(batches.iterate(size, **options))
    targets = None if found[0].targets is None else np.concatenate([b.targets for b in found])
    return np.concatenate([b.inputs["x"] for b in found]), targets


def _write_idx(file: Path, array: np.ndarray) -> None:
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    data = header + array.astype(np.uint8).tobytes()
    file.write_bytes(gzip.compress(data) if file.suffix == ".gz" else data)


def test_a_channel_axis_is_added_where_the_model_has_one(tmp_path: Path) -> None:
    spec = _npz(tmp_path, x=GREY, y=LABELS)
    for inputs, expected in ((NCHW, GREY[:, None]), (NHWC, GREY[..., None])):
        values, targets = _all(read_data(spec, inputs).train)
        np.testing.assert_allclose(values, expected / 255, rtol=1e-6)
        assert values.dtype == np.float32
        np.testing.assert_array_equal(targets, LABELS)
        assert targets.dtype == np.int64


def test_channels_are_moved_and_scaled_one_by_one(tmp_path: Path) -> None:
    images = np.random.default_rng(1).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
    values, targets = _all(read_data(_npz(tmp_path, x=images) + "?mean=0.1,0.2,0.3&std=0.5,0.6,0.7", RGB).train)
    expected = (images / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]
    np.testing.assert_allclose(values, expected.transpose(0, 3, 1, 2), rtol=1e-4, atol=1e-6)
    assert targets is None


def test_images_are_flattened_for_a_model_that_takes_vectors(tmp_path: Path) -> None:
    values, _ = _all(read_data(_npz(tmp_path, x=GREY), (InputSpec("x", (None, 30), FLOAT),)).train)
    np.testing.assert_allclose(values, GREY.reshape(20, 30) / 255, rtol=1e-6)


def test_float_samples_keep_their_values(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).normal(size=(4, 1, 6, 5)) * 100
    values, targets = _all(read_data(_npz(tmp_path, x=samples, y=samples[:, 0, 0, 0]), NCHW).train)
    np.testing.assert_allclose(values, samples, rtol=1e-6)
    assert targets is not None
    np.testing.assert_allclose(targets, samples[:, 0, 0, 0], rtol=1e-6)


def test_parts_of_an_npz_become_train_and_test(tmp_path: Path) -> None:
    arrays = (GREY[:15], LABELS[:15], GREY[15:], LABELS[15:])
    spellings = (
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_images", "train_labels", "val_images", "val_labels"),
    )
    for names in spellings:
        data = read_data(_npz(tmp_path, **dict(zip(names, arrays, strict=True))), NCHW)
        assert (len(data.train), len(data.test)) == (15, 5)
        np.testing.assert_array_equal(_all(data.test)[1], LABELS[15:])


def test_several_inputs_go_by_their_names(tmp_path: Path) -> None:
    inputs = (*NCHW, InputSpec("length", (None,), np.dtype(np.int64)))
    batch = next(read_data(_npz(tmp_path, x=GREY, length=LABELS), inputs).train.iterate(3))
    assert batch.inputs["x"].shape == (3, 1, 6, 5)
    assert batch.inputs["length"].tolist() == [0, 1, 2]
    assert batch.inputs["length"].dtype == np.int64
    with pytest.raises(DataError, match="no samples for the model's input 'length'"):
        read_data(_npz(tmp_path, x=GREY), inputs)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files(tmp_path: Path, suffix: str) -> None:
    _write_idx(tmp_path / f"train-images-idx3-ubyte{suffix}", GREY[:15])
    _write_idx(tmp_path / f"train-labels-idx1-ubyte{suffix}", LABELS[:15])
    _write_idx(tmp_path / f"t10k-images-idx3-ubyte{suffix}", GREY[15:])
    _write_idx(tmp_path / f"t10k-labels-idx1-ubyte{suffix}", LABELS[15:])
    data = read_data(str(tmp_path), NCHW)
    np.testing.assert_allclose(_all(data.train)[0][:, 0], GREY[:15] / 255, rtol=1e-6)
    np.testing.assert_array_equal(_all(data.test)[1], LABELS[15:])


def test_a_cut_off_idx_file(tmp_path: Path) -> None:
    file = tmp_path / "train-images-idx3-ubyte"
    _write_idx(file, GREY)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match="damaged"):
        read_data(str(tmp_path), NCHW)


def test_image_folders(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for number, name in enumerate(("cat", "dog")):
            (tmp_path / part / name).mkdir(parents=True)
            Image.fromarray(np.full((6, 5, 3), 100 * number + 50, np.uint8)).save(tmp_path / part / name / "a.png")
    data = read_data(str(tmp_path), RGB)
    values, targets = _all(data.train)
    assert data.classes == ("cat", "dog")
    assert data.test is not None
    np.testing.assert_array_equal(targets, [0, 1])
    np.testing.assert_allclose(values[:, :, 0, 0], np.array([[50] * 3, [150] * 3]) / 255, rtol=1e-5)
    (tmp_path / "train" / "cat" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(DataError, match=r"image .*a\.png cannot be read"):
        _all(read_data(str(tmp_path), RGB).train)


def test_images_without_classes_take_the_size_that_the_model_wants(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((40, 30), np.uint8)).save(tmp_path / "a.png")
    values, targets = _all(read_data(str(tmp_path), NCHW).train)
    assert values.shape == (1, 1, 6, 5)
    assert targets is None
    free = (InputSpec("x", (None, 3, None, None), FLOAT),)
    assert _all(read_data(f"{tmp_path}?size=8x7", free).train)[0].shape == (1, 3, 8, 7)
    with pytest.raises(DataError, match=r"any size; choose one with '\?size"):
        read_data(str(tmp_path), free)


def test_a_function_that_returns_loaders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_loaders.py").write_text(
        "import torch\n"
        "from torch.utils.data import DataLoader, TensorDataset\n"
        "def loaders():\n"
        "    data = TensorDataset(torch.arange(20.).reshape(20, 1, 1, 1).expand(20, 1, 6, 5), torch.arange(20) % 4)\n"
        "    return DataLoader(data, 8), DataLoader(data, 20)\n"
        "def broken():\n"
        "    raise RuntimeError('no disk')\n"
    )
    monkeypatch.chdir(tmp_path)
    try:
        data = read_data("some_loaders:loaders", NCHW)
        values, targets = _all(data.train)
        np.testing.assert_array_equal(values[:, 0, 2, 3], np.arange(20))
        np.testing.assert_array_equal(targets, LABELS)
        assert len(data.train) == 20
        assert [len(b) for b in data.train.iterate(3, rank=1, ranks=2)] == [8]
        with pytest.raises(DataError, match="no disk"):
            read_data("some_loaders:broken", NCHW)
        with pytest.raises(DataError, match="has no 'absent'"):
            read_data("some_loaders:absent", NCHW)
    finally:
        sys.modules.pop("some_loaders", None)


def test_shares_of_processes_make_up_the_joint_batch(tmp_path: Path) -> None:
    train = read_data(_npz(tmp_path, x=GREY, y=np.arange(20)), NCHW).train
    joint = [set(b.targets.tolist()) for b in train.iterate(8, seed=3)]
    shares = [list(train.iterate(4, seed=3, rank=rank, ranks=2)) for rank in range(2)]
    assert [set(a.targets.tolist()) | set(b.targets.tolist()) for a, b in zip(*shares, strict=True)] == joint
    assert _all(train, seed=3)[1].tolist() != _all(train, seed=4)[1].tolist()
    assert sorted(_all(train, seed=3)[1].tolist()) == list(range(20))


def test_limits_and_holdout(tmp_path: Path) -> None:
    spec = _npz(tmp_path, x=GREY, y=np.arange(20))
    data = read_data(f"{spec}?holdout=0.25&limit=6", NCHW)
    train, test = set(_all(data.train)[1].tolist()), set(_all(data.test)[1].tolist())
    assert (len(train), len(test), train & test) == (6, 5, set())
    assert data.digest != read_data(spec, NCHW).digest
    assert read_data(spec, NCHW).digest == read_data(spec, NCHW).digest


def test_the_inputs_of_a_model() -> None:
    model = load(Path(__file__).parents[2] / "models" / "vgg_torchscript.onnx")
    (spec,) = inputs_of(model)
    assert spec.sample == (1, 28, 28)
    assert spec.dtype == np.float32


@pytest.mark.parametrize(
    ("arrays", "inputs", "message"),
    [
        ({"x": GREY[:, :, :4]}, NCHW, "takes samples of 1 × 6 × 5, and those of the data are 6 × 4"),
        ({"x": GREY, "y": LABELS[:3]}, NCHW, "20 samples and 3 labels"),
        ({"x": GREY[:0]}, NCHW, "is empty"),
        ({"x": GREY.astype(np.float32)}, (InputSpec("x", (None, 1, 6, 5), np.dtype(np.int64)),), "takes int64"),
        ({"a": GREY, "b": GREY}, NCHW, "there are: a, b"),
        ({"x": GREY, "y": np.full(20, np.nan)}, NCHW, "labels are NaN"),
        ({"x": np.array(["a"] * 20)}, NCHW, "no array of numbers"),
    ],
)
def test_data_that_does_not_fit(tmp_path: Path, arrays, inputs, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_data(_npz(tmp_path, **arrays), inputs)


def test_nan_names_the_sample(tmp_path: Path) -> None:
    samples = GREY.astype(np.float32)
    samples[13, 2, 2] = np.nan
    with pytest.raises(DataError, match=r"sample 13 of data\.npz"):
        _all(read_data(_npz(tmp_path, x=samples), NCHW).train)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "empty"),
        ("/nowhere/data.npz", "does not exist"),
        ("no_such_module_at_all:f", "is not there"),
        ("x.npz?speed=3", "'speed' is not known"),
        ("x.npz?limit=many", "cannot be read"),
        ("x.npz?std=0", "must not be 0"),
        ("x.npz?holdout=2", "fraction below 1"),
    ],
)
def test_specs_that_are_wrong(spec: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_data(spec, NCHW)


def test_files_that_are_no_data(tmp_path: Path) -> None:
    (tmp_path / "data.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        read_data(str(tmp_path / "data.npz"), NCHW)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no images"):
        read_data(str(tmp_path / "empty"), NCHW)


# Hostile files


def _image(folder: Path, name: str, content: bytes) -> str:
    Image.fromarray(GREY[0]).save(folder / "a.png")
    (folder / name).write_bytes(content)
    return str(folder)


def _huge_png(width: int, height: int) -> bytes:
    """A PNG of a few bytes that unpacks to this many pixels."""
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("share", [1.1, 3.0], ids=["where PIL warns", "where PIL refuses"])
def test_images_that_unpack_to_too_much(tmp_path: Path, share: float) -> None:
    assert Image.MAX_IMAGE_PIXELS is not None
    side = int((share * Image.MAX_IMAGE_PIXELS) ** 0.5)
    data = read_data(_image(tmp_path, "b.png", _huge_png(side, side)), NCHW)
    with pytest.raises(DataError, match=r"b\.png cannot be read: Image size .* exceeds limit"):
        _all(data.train)


def test_damaged_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for kind in ("png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm"):
        file = tmp_path / f"a.{kind}"
        Image.fromarray(GREY[0]).save(file)
        whole = file.read_bytes()
        for _ in range(40):
            content = bytearray(whole)
            for at in rng.integers(0, len(content), 3):
                content[at] = rng.integers(256)
            file.write_bytes(content[: rng.integers(1, len(content) + 1)])
            try:
                _all(read_data(str(tmp_path), NCHW).train)
            except DataError:
                continue
        file.unlink()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")
def test_pipes_that_are_called_like_images(tmp_path: Path) -> None:
    import os

    (tmp_path / "a").mkdir()
    Image.fromarray(GREY[0]).save(tmp_path / "a" / "1.png")
    os.mkfifo(tmp_path / "a" / "2.png")
    values, _ = _all(read_data(str(tmp_path), NCHW).train)
    assert len(values) == 1


def test_idx_files_of_too_many_dimensions(tmp_path: Path) -> None:
    rank = 200
    content = struct.pack(">BBBB", 0, 0, 8, rank) + struct.pack(f">{rank}I", *[1] * rank) + b"\7"
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        read_data(str(tmp_path), NCHW)


def test_npz_files_are_not_unpickled(tmp_path: Path) -> None:
    spec = _npz(tmp_path, x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        read_data(spec, NCHW)


def test_npz_files_that_promise_more_than_memory_holds(tmp_path: Path) -> None:
    import io
    import zipfile

    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (2**55, 7)})
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        archive.writestr("x.npy", buffer.getvalue())
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        read_data(str(tmp_path / "data.npz"), NCHW)
