"""Inline the functions that a model defines."""

from __future__ import annotations

from onnx import FunctionProto, ModelProto, defs, inliner, shape_inference

from onnxprune.errors import PassError
from onnxprune.ir.model import Draft, Model
from onnxprune.ir.protos import STANDARD_DOMAINS
from onnxprune.passes.base import Pass, PassResult


class InlineFunctions(Pass):
    """Replace calls of the model's own functions by the nodes in them.

    Exporters that keep the structure of a program (PyTorch's dynamo, onnxscript) write modules and composed
    operators as functions. Functions of another opset are converted to the model's.
    """

    name = "inline_functions"

    def run(self, model: Model) -> PassResult:
        """Inline every function, at every depth, bodies of control flow included."""
        if not model.skeleton.functions:
            return PassResult(model, modified=False)
        proto = ModelProto()
        proto.CopyFrom(model.skeleton)
        for function in proto.functions:
            _adopt_opset(function, model.opset())
        # The inliner must know the weights' names, to avoid them; it does not need the values.
        proto.graph.initializer.extend(weight.header for weight in model.weights.values())
        try:
            if any(_differs(function, model.opset()) for function in proto.functions):
                # The inliner converts a call only where the types of its tensors are recorded.
                proto = shape_inference.infer_shapes(proto)
            inlined = inliner.inline_local_functions(proto, convert_version=True)
        except Exception as error:
            raise PassError(f"the functions of the model cannot be inlined: {error}") from error
        del inlined.graph.initializer[:]
        _import_domains(inlined, model)
        draft = Draft(inlined, dict(model.weights), model.path, model.sources)
        return PassResult(draft.finish(), modified=True)


def _differs(function: FunctionProto, version: int) -> bool:
    """Whether a function imports another version of the standard operators."""
    return any(entry.domain in STANDARD_DOMAINS and entry.version != version for entry in function.opset_import)


def _adopt_opset(function: FunctionProto, version: int) -> None:
    """Let a function import the model's standard operators, where its own are the same in both versions.

    The inliner's conversion loses metadata and fails where the type of a tensor is not recorded.
    """
    for entry in function.opset_import:
        if entry.domain in STANDARD_DOMAINS and all(
            _since(node.op_type, entry.version) == _since(node.op_type, version)
            for node in function.node
            if node.domain in STANDARD_DOMAINS
        ):
            entry.version = version


def _since(op_type: str, version: int) -> int | None:
    """The opset in which the operator became what it is in the given one; None if it does not exist."""
    try:
        return defs.get_schema(op_type, version).since_version
    except defs.SchemaError:
        return None


def _import_domains(inlined: ModelProto, model: Model) -> None:
    """Import the operator sets that only functions imported; the inliner leaves them out."""
    known = {entry.domain for entry in inlined.opset_import} | STANDARD_DOMAINS
    for function in model.skeleton.functions:
        for entry in function.opset_import:
            if entry.domain not in known:
                known.add(entry.domain)
                inlined.opset_import.append(entry)
