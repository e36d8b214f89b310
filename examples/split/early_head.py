"""An early output for a classifier that has none: fitted in closed form to what the last output says, without labels.

    python examples/split/early_head.py MODEL TENSOR SPEC OUT
    onnxprune exits OUT --calibrate OTHER_SPEC --max-loss 1%

TENSOR, [N, C, H, W], is averaged over a grid of cells, and a ridge regression from them to the model's scores becomes a
Gemm, with the output "early". Prove what may leave there on samples that it is not fitted to.
"""

from __future__ import annotations

import sys

import numpy as np
from onnx import TensorProto, helper

import onnxprune
from onnxprune.data.fidelity import outputs_of
from onnxprune.data.samples import collect

CELLS, RIDGE, MOST = 4, 1e-2, 10_000


def with_early_head(source: onnxprune.Model, tensor: str, spec: str) -> onnxprune.Model:
    """The model with the output "early" before its own one, fitted to so many samples of a SPEC as there are."""
    shape = onnxprune.analyze(source).shapes.extents[tensor]
    draft = source.edit()
    size = [-(-extent // CELLS) for extent in shape[2:]]
    draft.graph.node.extend(
        [
            helper.make_node("AveragePool", [tensor], ["early.pooled"], kernel_shape=size, strides=size, ceil_mode=1),
            helper.make_node("Flatten", ["early.pooled"], ["early.features"]),
        ]
    )
    last = draft.graph.output[0]
    features = helper.make_tensor_value_info("early.features", TensorProto.FLOAT, ["batch", None])
    draft.graph.output.append(features)
    probe = draft.finish()
    said = outputs_of(probe, collect(spec, probe, MOST), "the model")
    x = np.hstack([said["early.features"], np.ones((len(said["early.features"]), 1))])
    strength = RIDGE * np.square(x).sum(axis=0).mean() * np.eye(x.shape[1])
    weight = np.linalg.solve(x.T @ x + strength, x.T @ said[last.name]).astype(np.float32)
    draft = probe.edit()
    draft.add_weight("early.weight", weight[:-1])
    draft.add_weight("early.bias", weight[-1])
    draft.graph.node.append(helper.make_node("Gemm", ["early.features", "early.weight", "early.bias"], ["early"]))
    outputs = [helper.make_tensor_value_info("early", TensorProto.FLOAT, ["batch", weight.shape[1]]), last]
    del draft.graph.output[:]
    draft.graph.output.extend(outputs)
    return draft.finish()


if __name__ == "__main__":
    model, tensor, spec, out = sys.argv[1:]
    with_early_head(onnxprune.load(model), tensor, spec).save(out)
