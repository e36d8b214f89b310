"""What is known of an operator stands in its family's module: in ``ops/``, and for PyTorch in ``torch/ops/``."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from onnxprune.ops import default_registry

ROOT = Path(__file__).parents[2]
HOME = ("onnxprune/ops/", "onnxprune/torch/ops/")
KNOWN = frozenset(op_type for _, op_type, _, _ in default_registry().supported())

_BODIES = "the nodes that have bodies, which the graph looks into"
_INSERTS = "nodes that it inserts, whatever operator asks for them"
_FAULTS = "faults for the power of the certificate, which may not ask what they are to test"
_QUANTISED = "what onnxruntime.quantization writes, and what onnxruntime makes of it"
_REWRITES = "a pass that rewrites these operators"
ALLOWED: dict[str, tuple[str, str]] = {
    "onnxprune/cli/training.py": ("Conv", "advice on training from scratch"),
    "onnxprune/data/evaluation.py": ("LogSoftmax Sigmoid Softmax", "what classifiers end with"),
    "onnxprune/data/logits.py": (
        "Cast Flatten Identity LogSoftmax Reshape Sigmoid Softmax Squeeze Unsqueeze",
        "what classifiers end with",
    ),
    "onnxprune/data/synthetic.py": ("Gather", "what reads token numbers from a table"),
    "onnxprune/data/tasks/base.py": ("LogSoftmax Softmax", "what classifiers end with"),
    "onnxprune/data/tasks/classes.py": ("Sigmoid", "what classifiers end with"),
    "onnxprune/data/tasks/segmentation.py": ("Sigmoid", "what masks end with"),
    "onnxprune/ir/arithmetic.py": (
        "Add Cast Concat ConstantOfShape Div Equal Expand Gather Mod Mul Not Range Reshape Slice Squeeze Sub Unsqueeze "
        "Where",
        "shape arithmetic is evaluated before operators are asked",
    ),
    "onnxprune/ir/control_flow.py": ("Identity If Loop Scan", _BODIES),
    "onnxprune/ir/control_shapes.py": ("If Loop Scan", _BODIES),
    "onnxprune/ir/extents.py": ("Conv", "open channels of inputs are closed before operators are asked"),
    "onnxprune/ir/protos.py": ("If Loop Scan SequenceMap", _BODIES),
    "onnxprune/ir/shapes.py": ("MeanVarianceNormalization", "onnx infers no shape for it"),
    "onnxprune/ir/trying.py": ("Equal", "what inputs are compared with, to be tried"),
    "onnxprune/ir/runtimes/openvino.py": ("Conv ConvTranspose Gemm", "what OpenVINO calls them"),
    "onnxprune/ir/values.py": (
        "Bernoulli Flatten Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike Reshape Shape "
        "Size Squeeze Unsqueeze",
        "shape arithmetic is evaluated before operators are asked",
    ),
    "onnxprune/latency/layer_models.py": ("ReduceMax", "a node of the models that it measures"),
    "onnxprune/ir/tracing.py": ("If Loop Scan", _BODIES),
    "onnxprune/latency/times.py": ("Add MatMul", "nodes of the models that it measures the machine's peaks with"),
    "onnxprune/latency/planner.py": ("Conv Identity", "what onnxruntime calls what it has fused"),
    "onnxprune/latency/profile.py": ("Gemm MatMul", "what onnxruntime makes of a MatMul"),
    "onnxprune/splitting/wire.py": ("Cast DequantizeLinear QuantizeLinear", _INSERTS),
    "onnxprune/pruning/certificate/flat.py": ("Gather Identity If Loop Scan Shape Size", _BODIES),
    "onnxprune/pruning/certificate/resized.py": (
        "Resize",
        "what regions on smaller maps may have more than the original",
    ),
    "onnxprune/pruning/certificate/verifying.py": ("Equal", "what inputs are compared with, to be tried"),
    "onnxprune/pruning/compensation/biases.py": ("Add", "the addition behind a layer"),
    "onnxprune/pruning/branches.py": ("Concat Identity", "branches that join, and what stands for a single one"),
    "onnxprune/pruning/keeping.py": ("Gather Identity", _INSERTS),
    "onnxprune/pruning/gating/inserting.py": ("Add Cast Mul Reshape Sub", _INSERTS),
    "onnxprune/pruning/masking.py": ("Gather Mul", _INSERTS),
    "onnxprune/pruning/mutations/channels.py": (
        "Add BatchNormalization Conv ConvTranspose Gemm GroupNormalization InstanceNormalization LayerNormalization "
        "Mul QLinearConv Sub",
        _FAULTS,
    ),
    "onnxprune/pruning/mutations/numbers.py": (
        "Expand Gather GatherElements GatherND Pad Reshape Resize ScatterElements ScatterND Slice Split Tile",
        _FAULTS,
    ),
    "onnxprune/pruning/mutations/specimen.py": ("QAttention QGemm", _FAULTS),
    "onnxprune/pruning/quantization/certificate.py": ("Clip DequantizeLinear QuantizeLinear Relu", _QUANTISED),
    "onnxprune/pruning/quantization/converting.py": ("Cast LSTM MatMul Mul Transpose", _QUANTISED),
    "onnxprune/pruning/quantization/correcting.py": ("DequantizeLinear", _QUANTISED),
    "onnxprune/pruning/quantization/preparing.py": ("MatMulNBits QAttention QGemm QuantizeLinear", _QUANTISED),
    "onnxprune/pruning/quantization/simulation.py": ("Conv Gemm MatMul", "integers, independently of all else"),
    "onnxprune/pruning/quantization/sparing.py": ("Clip Relu", _QUANTISED),
    "onnxprune/pruning/quantization/stored.py": ("DynamicQuantizeLSTM MatMulInteger MatMulNBits Mul", _QUANTISED),
    "onnxprune/pruning/quantization/writing.py": (
        "BatchNormalization Clip Conv ConvTranspose DequantizeLinear Gemm InstanceNormalization LayerNormalization "
        "QuantizeLinear Relu",
        _QUANTISED,
    ),
    "onnxprune/pruning/shrinking.py": ("Add Gather Mul Pad Slice", _INSERTS),
    "onnxprune/torch/module.py": ("Loop Scan", "bodies that cannot be imported are refused"),
    "onnxprune/torch/training/batching.py": ("Reshape", "batches of any size"),
    "onnxprune/torch/writing.py": ("Identity", "an initialiser that an Identity shares"),
    "passes/_folding.py": ("ConstantOfShape", _REWRITES),
    "passes/eliminate_identity.py": ("Identity", _REWRITES),
    "passes/_layers.py": ("Conv Gemm", _REWRITES),
    "passes/fold_affine.py": ("Add Conv ConvTranspose Div Mul Sub", _REWRITES),
    "passes/fold_batchnorm.py": ("BatchNormalization Conv ConvTranspose Gemm", _REWRITES),
    "passes/fold_constants.py": (
        "Cast DequantizeLinear Dropout DynamicQuantizeLinear Identity If Loop Optional OptionalGetElement "
        "OptionalHasElement QuantizeLinear Scan SequenceConstruct SequenceEmpty SequenceMap SplitToSequence",
        "what it must not fold",
    ),
    "passes/fold_shapes.py": ("Gather Shape Size Slice Split", _REWRITES),
    "passes/merge_groups.py": ("Conv", _REWRITES),
    "passes/merge_linear.py": ("Add Conv Gemm MatMul", _REWRITES),
    "passes/reinitialize.py": (
        "Add BatchNormalization Conv ConvTranspose GRU Gather Gemm GroupNormalization InstanceNormalization LSTM "
        "LayerNormalization MatMul PRelu RMSNormalization RNN",
        _REWRITES,
    ),
    "passes/resolve_control_flow.py": ("Concat Identity If Loop Unsqueeze", _REWRITES),
    "passes/resolve_sequences.py": (
        "Concat ConcatFromSequence Identity If Loop Optional OptionalGetElement OptionalHasElement SequenceAt "
        "SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap Split SplitToSequence "
        "Squeeze Unsqueeze",
        _REWRITES,
    ),
    "passes/restore_batchnorm.py": ("Add BatchNormalization Cast Conv Div Mul Sub", _REWRITES),
}
"""The operators that a file names, and why it may."""


def _named(source: str) -> set[str]:
    """The operator types among the string constants of a module."""
    constants = (node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant))
    return {value for value in constants if isinstance(value, str) and value in KNOWN}


def _elsewhere() -> Iterator[tuple[str, set[str]]]:
    for path in sorted([*(ROOT / "onnxprune").rglob("*.py"), *(ROOT / "passes").rglob("*.py")]):
        name = path.relative_to(ROOT).as_posix()
        found = set() if name.startswith(HOME) else _named(path.read_text(encoding="utf-8"))
        if found:
            yield name, found


def test_operators_are_named_at_home_only() -> None:
    allowed = {name: set(types.split()) for name, (types, _) in ALLOWED.items()}
    # Both ways: what is no longer named is no longer allowed.
    assert dict(_elsewhere()) == allowed


def test_a_name_elsewhere_is_noticed() -> None:
    assert _named('if node.op_type in ("Conv", "Concat"): pass') == {"Conv", "Concat"}


def test_no_family_says_what_another_says() -> None:
    owners: dict[tuple[str, str], str] = {}
    for family in _families("onnxprune.ops"):
        for operator in getattr(family, "OPERATORS", ()):
            for op_type in operator.types:
                owners[operator.domain, op_type] = family.__name__.rpartition(".")[2]
    pytest.importorskip("torch")
    wrong = {
        f"{family.__name__}: {converter.op_type} belongs to {owners.get((converter.domain, converter.op_type))}"
        for family in _families("onnxprune.torch.ops")
        for converter in getattr(family, "CONVERTERS", ())
        if owners.get((converter.domain, converter.op_type)) != family.__name__.rpartition(".")[2]
    }
    assert not wrong


def _families(package: str) -> Iterator[ModuleType]:
    folder = ROOT.joinpath(*package.split("."))
    for path in sorted(folder.glob("*.py")):
        if path.stem not in ("__init__", "base", "registry"):
            yield importlib.import_module(f"{package}.{path.stem}")
