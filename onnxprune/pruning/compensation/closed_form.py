"""The one function of this package."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import onnx

from onnxprune.data.memory import memory_budget
from onnxprune.data.samples import DEFAULT_COUNT, CalibrationSource, Samples, collect
from onnxprune.errors import UsageError, unknown
from onnxprune.ir.model import Model, ModelLike, as_model
from onnxprune.ops import Registry
from onnxprune.ops.layers import LinearLayer
from onnxprune.passes.normalize import normalize
from onnxprune.pruning.calibration import sourced
from onnxprune.pruning.compensation.batchnorm import fold_means, is_reestimable, reestimate
from onnxprune.pruning.compensation.gathering import Walk
from onnxprune.pruning.compensation.products import mixes
from onnxprune.pruning.compensation.refit import (
    LayerFit,
    begin,
    factors_from,
    linear_layers,
    refit_factors,
    refit_layer,
)
from onnxprune.pruning.plan import Plan
from onnxprune.pruning.substituting import replaced

METHODS = ("refit", "bias", "batchnorm")


@dataclass(frozen=True)
class Compensation:
    """A compensated model, the nodes that changed, what was fitted, and the layers left alone, with the reason."""

    model: Model
    method: str
    samples: int
    changed: tuple[str, ...]
    layers: tuple[LayerFit, ...]
    skipped: dict[str, str]

    def unfitted(self, plan: Plan) -> tuple[str, ...]:
        """What stands for a region of the plan and holds random weights still, with the reason."""
        names = (f"{one.exit}_replaced" for one in plan.replaced)
        return tuple(f"{name}: {self.skipped[name]}" for name in names if name in self.skipped)

    def __repr__(self) -> str:
        """One line; ``layers`` tell the rest."""
        return f"Compensation({self.method} with {self.samples} samples, {len(self.changed)} layers changed)"

    @property
    def few(self) -> tuple[LayerFit, ...]:
        """The layers with too few rows for their unknowns, the worst first."""
        found = (layer for layer in self.layers if layer.share is not None and layer.few)
        return tuple(sorted(found, key=lambda layer: layer.rows / layer.unknowns))

    def to_dict(self) -> dict[str, Any]:
        """What was done, as plain data for JSON."""
        return {
            "method": self.method,
            "samples": self.samples,
            "changed": list(self.changed),
            "layers": [asdict(layer) for layer in self.layers],
            "skipped": self.skipped,
        }


def compensate(
    pruned: ModelLike,
    original: ModelLike,
    plan: Plan,
    data: CalibrationSource | Samples | None = None,
    *,
    method: str = "refit",
    samples: int = DEFAULT_COUNT,
    direct: bool = False,
    seed: int = 0,
    memory: int | None = None,
    registry: Registry | None = None,
) -> Compensation:
    """Change the remaining weights of a pruned model so that it computes what the original did, as well as it can.

    Args:
        pruned: the result of applying ``plan`` to ``original``.
        original: the model before.
        plan: what was removed.
        data: calibration samples: a SPEC, Data, Batches, or arrays by input; labels are not looked at. Only ``bias``
            does without.
        method: ``refit`` (ridge regression of every layer's weights and bias behind the removed channels, in graph
            order), ``bias`` (only biases, so that mean outputs are as before; with zero padding the mean takes
            the border in as the samples have it) or ``batchnorm`` (mean and variance of every BatchNormalization
            behind the removed channels, measured anew). Without data, ``bias`` adds the mean activations of removed
            channels as BatchNormalization tells them, which is right for the interior of what is zero-padded.
        samples: how many calibration samples to use.
        direct: change only the layers that read removed channels, not those behind them.
        seed: of the choice of samples and of output positions.
        memory: bytes that it may take beside the models and samples; half of what is free, if not given. Layers whose
            weights cannot be fitted in it are in ``skipped``, with the reason; their biases are fitted.
        registry: the operators, which say what is a layer; those that onnxprune and plugins know, if not given.

    Raises:
        UsageError: an unknown method, one that needs data and has none, or no memory at all.
        DataError: samples are missing, not finite, or do not fit the model.
        VerificationError: onnxruntime does not run one of the models.
    """
    if method not in METHODS:
        raise UsageError(unknown("compensation", method, METHODS))
    if memory is not None and memory < 1:
        raise UsageError(f"compensation cannot do with {memory} bytes of memory; give some, like 4GB")
    # Maps of other extents are no targets: the original on those that are left is what others are fitted to.
    source, result = replaced(normalize(original), plan.resized), as_model(pruned)
    if data is None:
        if method != "bias":
            raise UsageError(f"compensation '{method}' needs calibration data; give some, or choose 'bias'")
        found, changed, without = fold_means(result, source, plan.removed)
        return Compensation(found, method, 0, changed, (), without)
    given = data if isinstance(data, Samples) else collect(sourced(data, source), source, samples, seed=seed)
    chosen = given.viewed()
    if not plan:
        return Compensation(result, method, len(chosen), (), (), {})
    walk = begin(result, source, plan.removed, chosen, seed, memory_budget(memory))
    behind, others = _behind(walk), _others(walk)
    if method == "batchnorm":
        nodes = [n for n in walk.graph.nodes if n.inputs and n.inputs[0] in behind and is_reestimable(walk.graph, n)]
        for node in nodes:
            reestimate(walk, node)
        changed = tuple(node.name for node in nodes)
        return Compensation(walk.draft.finish(), method, len(chosen), changed, (), {})
    layers: list[LayerFit] = []
    skipped: dict[str, str] = {}
    fitted: set[int] = set()
    for layer in linear_layers(walk.graph, registry):
        if layer.node in fitted:
            continue
        stages = factors_from(walk, layer) if method == "refit" else ()
        if stages:
            fit, reason = refit_factors(walk, stages)
            fitted.update(stage.node for stage in stages)
            if reason:
                skipped[stages[-1].name] = reason
            if fit is not None:
                layers.append(fit)
            continue
        lost = layer.node in others or layer.in_dim in plan.removed.get(layer.input, {})
        if not (lost or (layer.input in behind and not direct) or (method == "refit" and mixes(walk, layer))):
            continue
        reason = _reason(walk, layer)
        if reason:
            skipped[layer.name] = reason
            continue
        fit, reason = refit_layer(walk, layer, weights=method == "refit")
        if reason:
            skipped[layer.name] = reason if fit is None else f"{reason}; its bias was"
        if fit is not None:
            layers.append(fit)
    names = tuple(layer.name for layer in layers)
    return Compensation(walk.draft.finish(), method, len(chosen), names, tuple(layers), skipped)


def _behind(walk: Walk) -> set[str]:
    """Tensors that lost channels or are made in another way than the original's, and all that is computed from them."""
    found = {name for name in walk.removed if name not in walk.graph.model.weights}
    found.update(walk.graph.nodes[index].outputs[0] for index in _others(walk))
    for node in walk.graph.nodes:
        reads = (*node.inputs, *walk.graph.captured.get(node.index, ()))
        if found.intersection(reads):
            found.update(name for name in node.outputs if name)
    return found


def _others(walk: Walk) -> set[int]:
    """The nodes that are not the original's: of another operator, or computing from other tensors."""
    known = {name: node for node in walk.original.nodes for name in node.output if name}

    def reads(node: onnx.NodeProto) -> list[str]:
        return [name for name in node.input if name in known]

    found = set()
    for node in walk.graph.nodes:
        was = known.get(node.outputs[0]) if node.outputs else None
        if was is not None and (was.op_type != node.op_type or reads(was) != reads(node.proto)):
            found.add(node.index)
    return found


def _reason(walk: Walk, layer: LinearLayer) -> str | None:
    """Why a layer cannot be fitted, if it cannot."""
    if layer.output not in walk.makers:
        return "its output has another name in the original"
    if len(walk.graph.consumers.get(layer.weight, ())) > 1:
        return "its weight serves several layers"
    return None
