"""The test cases of the ``onnx`` package, one per behaviour of an operator, as far as PyTorch has their types."""

from __future__ import annotations

import warnings
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TypeProto
from onnx.backend.test.case.node import collect_testcases
from onnx.helper import tensor_dtype_to_np_dtype

from onnxprune.ops import default_registry as analysed
from onnxprune.torch import default_registry

NEWEST_OPSET = 23

DISPUTED = frozenset(
    {
        # onnxruntime maps corners to corners of what really comes out, the case to those of a fractional size.
        "test_resize_downsample_scales_linear_align_corners",
        "test_resize_downsample_scales_cubic_align_corners",
        # The case scales both factors in half precision.
        "test_attention_4d_causal_fp16",
    }
)
"""Cases whose expected values are not those of onnxruntime, which counts."""
WRONG_IN_ONNXRUNTIME = frozenset({"test_maxunpool_export_with_output_shape"})
"""Cases whose expected values onnxruntime does not give: it takes positions to be those in the larger output."""
_RANDOM = frozenset({"Bernoulli", "Multinomial", "RandomNormalLike", "RandomUniformLike"})
_NUMPY_KINDS = "fiubc"


@dataclass(frozen=True)
class Case:
    """A model, and pairs of inputs and expected outputs."""

    name: str
    op_type: str | None
    model: ModelProto
    data: list[tuple[list[NDArray[Any]], list[NDArray[Any]]]]
    rtol: float
    atol: float


@cache
def cases() -> dict[str | None, list[Case]]:
    """All cases whose operators the analysis knows; those of single nodes by operator, the others under None."""
    known = {(domain, op_type) for domain, op_type, _, _ in analysed().supported()}
    have = {(domain, op_type) for domain, op_type, _, _ in default_registry().supported()}
    found: dict[str | None, list[Case]] = defaultdict(list)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        every = collect_testcases(None)
    for case in every:
        nodes = case.model.graph.node
        used = {("" if node.domain == "ai.onnx" else node.domain, node.op_type) for node in nodes}
        opset = next((o.version for o in case.model.opset_import if o.domain in ("", "ai.onnx")), 0)
        if not used <= (known & have) or not _fits(case.model) or any(op_type in _RANDOM for _, op_type in used):
            continue
        # What came after the newest opset is not promised; training dropout draws random numbers.
        if opset > NEWEST_OPSET and nodes[0].op_type in ("Attention", "SpaceToDepth"):
            continue
        if "training_dropout" in case.name:
            continue
        op_type = nodes[0].op_type if len(nodes) == 1 else None
        data = [([np.asarray(i) for i in ins], [np.asarray(o) for o in outs]) for ins, outs in case.data_sets]
        if any(array.dtype.kind not in _NUMPY_KINDS for ins, outs in data for array in (*ins, *outs)):
            continue
        found[op_type].append(Case(case.name, op_type, case.model, data, case.rtol, case.atol))
    return found


def _fits(model: ModelProto) -> bool:
    """Whether all inputs and outputs are tensors of types that numpy and PyTorch share."""
    values = (*model.graph.input, *model.graph.output)
    return all(_is_shared(value.type) for value in values)


def _is_shared(kind: TypeProto) -> bool:
    if not kind.HasField("tensor_type"):
        return False
    dtype = tensor_dtype_to_np_dtype(kind.tensor_type.elem_type)
    return dtype.kind in _NUMPY_KINDS and dtype.isbuiltin == 1
