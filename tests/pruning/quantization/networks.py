"""Small float networks to quantise, and samples for them."""

import numpy as np
import onnx

import onnxprune
from onnxprune.data.samples import Samples

SAMPLES = 24


def network(opset: int = 17) -> onnxprune.Model:
    """Convolutions (plain, depthwise, dilated with stride), a residual sum, pooling, a Gemm."""
    proto = onnx.parser.parse_model(f"""
    <ir_version: 7, opset_import: ["": {opset}]>
    net (float[N, 3, 12, 12] x) => (float[N, 5] y) {{
        a = Conv<pads = [1, 1, 1, 1], kernel_shape = [3, 3]>(x, w1, b1)
        a_relu = Relu(a)
        d = Conv<pads = [1, 1, 1, 1], kernel_shape = [3, 3], group = 16>(a_relu, w2, b2)
        d_relu = Relu(d)
        s = Add(d_relu, a_relu)
        e = Conv<kernel_shape = [3, 3], strides = [2, 2], dilations = [2, 2]>(s, w3, b3)
        e_relu = Relu(e)
        p = GlobalAveragePool(e_relu)
        f = Flatten(p)
        y = Gemm<transB = 1>(f, w4, b4)
    }}
    """)
    for number, node in enumerate(proto.graph.node):
        node.name = f"node{number}_{node.op_type}"
    rng = np.random.default_rng(3)
    shapes = {"w1": (16, 3, 3, 3), "w2": (16, 1, 3, 3), "w3": (8, 16, 3, 3), "w4": (5, 8)}
    for name, shape in shapes.items():
        weight = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        bias = rng.standard_normal(shape[0]) / 4
        for label, value in ((name, weight), (name.replace("w", "b"), bias)):
            proto.graph.initializer.append(onnx.numpy_helper.from_array(value.astype(np.float32), label))
    proto.metadata_props.add(key="names", value="kept")
    onnx.checker.check_model(proto)
    return onnxprune.load(proto)


def samples(seed: int = 0) -> Samples:
    """Inputs for it."""
    values = np.random.default_rng(seed).standard_normal((SAMPLES, 3, 12, 12))
    return Samples({"x": values.astype(np.float32)}, None, 8)
