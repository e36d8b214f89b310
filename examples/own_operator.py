"""An operator that onnxprune does not know, told to it in a few lines.

python examples/own_operator.py
onnxprune prune regions.onnx -o smaller.onnx --channels 0.5 --plugin examples/own_operator.py
"""

import numpy as np
import onnx

import onnxprune
from onnxprune.ir.graph import Node
from onnxprune.ops import Operator, default_registry
from onnxprune.ops.relations import Relations


class CropAndResize(Operator):
    """X (N, C, H, W), regions (R, 4), samples (R), crop_size (2) → Y (R, C, h, w)."""

    types = ("CropAndResize",)
    domain = "com.microsoft"

    def relate(self, node: Node, relations: Relations) -> None:
        """Channels go through, each on its own; the other axes are not mentioned, and so stay as they are."""
        relations.equal(node.inputs[0], 1, node.outputs[0], 1)


OPERATORS = (CropAndResize,)  # what --plugin looks for

GRAPH = """
<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>
regions (float[2, 3, 9, 9] x, float[3, 4] boxes, int32[3] samples) => (float[3, 5, 4, 6] y)
<int32[2] crop_size = {4, 6}, float[3, 16, 4, 6] cut> {
    features = Conv(x, first)
    cut = com.microsoft.CropAndResize(features, boxes, samples, crop_size)
    y = Conv(cut, second)
}
"""

if __name__ == "__main__":
    model, rng = onnx.parser.parse_model(GRAPH), np.random.default_rng(0)
    for name, extents in {"first": (16, 3, 3, 3), "second": (5, 16, 1, 1)}.items():
        weight = rng.standard_normal(extents).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    onnx.save(model, "regions.onnx")

    for reason in onnxprune.analyze(model).unknown.values():
        print("without it:", reason)
    result = onnxprune.compress(model, channels=0.5, registry=default_registry().extended(*OPERATORS))
    print("with it:", result)
