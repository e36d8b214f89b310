"""Small networks to measure."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper


def chain(*widths: int, size: int = 9) -> ModelProto:
    """3 channels → convolutions of these widths with activations between, the last one's channels are the output's."""
    lines, weights = [], []
    inputs = [3, *widths[:-1]]
    rng = np.random.default_rng(0)
    for at, (before, after) in enumerate(zip(inputs, widths, strict=True)):
        weights.append(numpy_helper.from_array(rng.standard_normal((after, before, 3, 3), np.float32), f"w{at}"))
        source = "x" if at == 0 else f"r{at - 1}"
        last = at == len(widths) - 1
        lines.append(f"{'y' if last else f'c{at}'} = Conv <pads = [1, 1, 1, 1]> ({source}, w{at})")
        lines += [] if last else [f"r{at} = Relu (c{at})"]
    text = f"""<ir_version: 8, opset_import: ["": 17]>
    chain (float[1, 3, {size}, {size}] x) => (float[1, {widths[-1]}, {size}, {size}] y) {{ {chr(10).join(lines)} }}"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(weights)
    return model


def depthwise(channels: int) -> ModelProto:
    """1×1, depthwise 3×3, 1×1 as in MobileNet; the result has 5 channels."""
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["": 17]>
    depthwise (float[1, 3, 8, 8] x) => (float[1, 5, 8, 8] y) {{
        a = Conv (x, w0)
        b = Conv <group = {channels}, pads = [1, 1, 1, 1]> (a, w1)
        y = Conv (b, w2)
    }}""")
    rng = np.random.default_rng(0)
    for name, shape in {"w0": (channels, 3, 1, 1), "w1": (channels, 1, 3, 3), "w2": (5, channels, 1, 1)}.items():
        model.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(shape, np.float32), name))
    return model
