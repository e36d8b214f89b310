"""Export networks of keras.applications to a folder, as `export_zoo` does with PyTorch's.

    python -m venv keras-env
    keras-env/bin/pip install keras==3.15.1 torch==2.14.1 onnx onnxscript
    KERAS_BACKEND=torch keras-env/bin/python tests/zoo/export_keras.py --out DIR

A network lands in DIR/keras/<name>_<back end>.onnx. Weights are random, but every position has its own. ``--dynamo``
takes PyTorch's exporter instead of Keras' own, which on PyTorch traces, and so fails where padding follows the shape.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import keras  # type: ignore[import-not-found,import-untyped,unused-ignore]
import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.zoo.reporting import add_report

NETWORKS = ("Xception", "MobileNetV3Small", "EfficientNetV2B0", "NASNetMobile", "InceptionResNetV2")
SIZES = {"Xception": 128, "InceptionResNetV2": 128, "NASNetMobile": 224}


def main() -> int:
    """Export what the command line names, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which, of {', '.join(NETWORKS)}")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--dynamo", action="store_true", help="PyTorch's exporter instead of Keras' own")
    options = parser.parse_args()
    suffix = keras.backend.backend() + ("_dynamo" if options.dynamo else "")
    for name in options.names or NETWORKS:
        start = time.perf_counter()
        report: dict[str, Any] = {"name": f"{name}_{suffix}", "exporter": "keras", "family": "keras"}
        try:
            path = options.out / "keras" / f"{report['name']}.onnx"
            report |= {"ok": True, **_export(name, path, dynamo=options.dynamo)}
        except Exception as error:
            report |= {"ok": False, "error": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"}
        add_report(options.out, {**report, "seconds": round(time.perf_counter() - start, 1)})
        print("ok    " if report["ok"] else "FAILED", report["name"], report.get("error", ""), flush=True)
    return 0


def _export(name: str, path: Path, *, dynamo: bool) -> dict[str, Any]:
    keras.utils.set_random_seed(0)
    size = SIZES.get(name, 96)
    model = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classes=100)
    _spread(model)
    model(np.zeros((1, size, size, 3), dtype=np.float32))  # the exporter wants a model that has run
    path.parent.mkdir(parents=True, exist_ok=True)
    if dynamo:
        _with_dynamo(model, size, path)
    else:
        model.export(str(path), format="onnx", verbose=False)
    return {
        "parameters": model.count_params(),
        "megabytes": round(path.stat().st_size / 1e6, 1),
        "size": [[1, size, size, 3]],
        "weights": "fresh",
        "opset": max(entry.version for entry in onnx.load(path, load_external_data=False).opset_import),
    }


def _with_dynamo(model: Any, size: int, path: Path) -> None:
    """A Keras model is a module, too, where PyTorch is the back end."""
    import torch

    image = torch.zeros(1, size, size, 3)
    settings: dict[str, Any] = {"dynamo": True, "external_data": False, "verbose": False}
    torch.onnx.export(model.eval(), (image,), str(path), input_names=["input"], **settings)


def _spread(model: Any) -> None:
    """Give every position of biases, scales and statistics a value of its own, and convolutions their gain."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        value = keras.ops.convert_to_numpy(weight)
        if value.ndim < 2:
            kind = weight.name
            low, high = (0.6, 1.4) if kind in ("gamma", "moving_variance") else (-0.2, 0.2)
            weight.assign(rng.uniform(low, high, value.shape).astype(value.dtype))
        elif value.size:
            fan_in = value[..., 0].size if value.ndim == 2 else int(np.prod(value.shape[:-1]))
            gain = float(value.std()) * fan_in**0.5
            weight.assign(value / gain if 0 < gain < 0.8 else value)


if __name__ == "__main__":
    sys.exit(main())
