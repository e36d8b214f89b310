"""What a model needs before it is quantised: folded, of an operator set with scales per channel, nodes named."""

from __future__ import annotations

import numpy as np
from onnx import version_converter

from onnxprune.data.samples import Samples
from onnxprune.errors import UsageError, VerificationError
from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Model, load
from onnxprune.ir.protos import node_title
from onnxprune.ir.session import Session, first_line
from onnxprune.ops import Operator, default_registry
from onnxprune.passes.fold_affine import FoldAffine
from onnxprune.passes.fold_batchnorm import FoldBatchnorm
from onnxprune.passes.normalize import normalize
from onnxprune.pruning.quantization.quietly import quietly

_PER_CHANNEL = 13
"""The operator set from which scales of QuantizeLinear and DequantizeLinear may differ by channel."""
_DOMAINS = ("", "com.microsoft")
#: What folding or a change of operator set may move, relative to the largest output.
_TOLERANCE = 1e-3
#: Probabilities below this say nothing.
_TINY = 1e-3


def prepare(model: Model, samples: Samples) -> Model:
    """The float model that quantising starts from; it computes what ``model`` does, which is tried on a sample.

    Raises:
        UsageError: the model is quantised already, or its operator set cannot be raised.
        VerificationError: what was prepared computes something else.
    """
    refuse_quantised(model)
    plain = named(normalize(model))
    raised = plain if plain.opset() >= _PER_CHANNEL else named(_raised(plain, samples))
    prepared = named(FoldAffine().run(FoldBatchnorm().run(raised).model).model)
    if (different := difference(plain, prepared, samples)) is not None:
        raise VerificationError(f"folding the model would change it: {different}")
    return prepared


def refuse_quantised(model: Model) -> None:
    """Raises UsageError for a model with integer arithmetic in it."""
    for node in model.graph.node:
        if node.domain in _DOMAINS and _is_integer(node.op_type):
            raise UsageError(
                f"the model is quantised already: {node.op_type} '{node_title(node)}'; give the float model"
            )


def _is_integer(kind: str) -> bool:
    quantised = kind.startswith(
        ("QLinear", "QGemm", "QAttention", "QEmbed", "QOrdered", "DynamicQuantize", "MatMulNBits")
    )
    return quantised or kind.endswith(("Integer", "IntegerToFloat", "QuantizeLinear"))


def _raised(model: Model, samples: Samples) -> Model:
    """The model with operator set 13: what onnx makes of it, if that computes the same."""
    advice = f"export the model with operator set {_PER_CHANNEL} or later"
    begin = f"operator set {model.opset()} has no scales per channel, and it cannot be raised"
    try:
        with quietly():
            raised = load(version_converter.convert_version(model.to_proto(), _PER_CHANNEL))
    except Exception as error:
        raise UsageError(f"{begin}: {first_line(error)}; {advice}") from error
    draft = raised.edit()
    for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
        setattr(draft.skeleton, field, getattr(model.skeleton, field))
    del draft.skeleton.metadata_props[:]
    draft.skeleton.metadata_props.extend(model.skeleton.metadata_props)
    draft.path, draft.sources = model.path, model.sources
    raised = draft.finish()
    try:
        different = difference(model, raised, samples)
    except VerificationError as error:
        raise UsageError(f"{begin}: {error}; {advice}") from error
    if different is not None:
        raise UsageError(f"{begin}: {different}; {advice}")
    return raised


def difference(model: Model, other: Model, samples: Samples) -> str | None:
    """What differs at the outputs for one sample, None if nothing does."""
    inputs = next(samples.part(0, samples.step if samples.fixed else 1).batches())
    before, after = (Session(m, what, threads=1).run(inputs) for m, what in ((model, "the model"), (other, "it")))
    for name, value in before.items():
        if value.dtype.kind == "f" and value.size:
            worst = float(np.abs(value - after[name]).max())
            if not worst <= _TOLERANCE * max(float(np.abs(value).max()), _TINY):
                return f"output '{name}' would change by {worst:.2g}"
    return None


def named(model: Model) -> Model:
    """The model with a name for every node, each another: what is quantised is told by names."""
    seen: set[str] = set()
    draft = model.edit()
    for node in draft.graph.node:
        base = node.name or next((o for o in node.output if o), node.op_type)
        name, number = base, 1
        while name in seen:
            name, number = f"{base}_{number}", number + 1
        seen.add(name)
        node.name = name
    return draft.finish()


def layers_of(model: Model) -> tuple[str, ...]:
    """The names of the nodes that contract a float weight with an activation: what costs time and what int8 saves."""
    graph, registry = model.derived(Graph), default_registry()
    found = []
    for node in graph.nodes:
        operator = registry.find(node)
        contracts = operator is not None and type(operator).cost is not Operator.cost
        if contracts and any(model.weights[n].dtype.kind == "f" for n in node.inputs if n in model.weights):
            found.append(node.name)
    return tuple(found)
