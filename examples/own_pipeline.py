"""Pruning as one pass among yours: models in memory, every pass checked, the plan and the proof as data."""

import json
from pathlib import Path

import onnx

import onnxprune
from onnxprune.passes.adapters import ProtoPass
from onnxprune.passes.manager import Check, PassManager
from onnxprune.passes.pipeline import Step

MODELS = Path(__file__).resolve().parents[1] / "models"


def without_docs(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Any function of a ModelProto is a pass (onnxsim, onnxslim, ...): this one drops documentation."""
    for node in proto.graph.node:
        node.ClearField("doc_string")
    return proto


front = PassManager([Step("normalize").make(), ProtoPass(without_docs)], Check.EQUALITY)
original = front.run(onnx.load(MODELS / "depthwise_torchscript.onnx")).model

# The plan is data: look at it, keep it, change it, apply it elsewhere.
plan = onnxprune.plan(original, reduce=0.4, criterion="l2", round_to=8)
pruned = onnxprune.apply(original, plan)
certificate = onnxprune.verify(original, pruned, plan)
if not certificate:
    raise SystemExit(str(certificate))

lowered = PassManager([Step("fold_batchnorm").make()], Check.EQUALITY).run(pruned).model
proof = {"removed": len(plan.removed), "tensors": certificate.tensors, "worst": certificate.max_relative}
Path("proof.json").write_text(json.dumps(proof))
Path("lowered.onnx").write_bytes(lowered.to_bytes())
print(json.dumps(proof))
