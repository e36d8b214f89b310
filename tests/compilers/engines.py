"""The engines that the study asks, each in an environment of its own.

An environment is made at first use; the variable named beside it gives an interpreter to use instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.benchmarks.environments import Environment


@dataclass(frozen=True)
class Compiler:
    """What takes ONNX files.

    Attributes:
        name: as `worker` knows it.
        title: as the page has it.
        environment: where it is installed.
        distributions: packages whose versions tell what was asked.
        seconds: time limit of one file.
        largest: bytes of a file; it is not given larger ones, for the time this would take.
    """

    name: str
    title: str
    environment: Environment
    distributions: tuple[str, ...]
    seconds: float = 900.0
    largest: float = 60e6


def _environment(name: str, *packages: str) -> Environment:
    variable = f"ONNXPRUNE_COMPILERS_{name.upper().replace('-', '_')}"
    return Environment(f"compiler-{name}", variable, packages)


OPENVINO = Compiler(
    "openvino", "OpenVINO", _environment("openvino", "openvino==2026.4.1", "numpy"), ("openvino",), largest=600e6
)
TVM = Compiler("tvm", "TVM (Relax)", _environment("tvm", "apache-tvm==0.27.0.post1", "onnx", "numpy"), ("apache-tvm",))
IREE = Compiler(
    "iree",
    "IREE",
    _environment("iree", "iree-base-compiler[onnx]==3.13.0", "iree-base-runtime==3.13.0", "numpy"),
    ("iree-base-compiler",),
)
TRACT = Compiler("tract", "tract", _environment("tract", "tract==0.23.9", "numpy"), ("tract",))
NCNN = Compiler(
    "ncnn",
    "ncnn (pnnx)",
    _environment("ncnn", "ncnn==1.0.20261020", "pnnx==20261020", "onnx", "numpy"),
    ("ncnn", "pnnx"),
)
MNN = Compiler("mnn", "MNN", _environment("mnn", "MNN==3.6.1", "onnx", "numpy"), ("MNN",))
LITERT = Compiler(
    "litert",
    "LiteRT (onnx2tf)",
    _environment("litert", "onnx2tf==1.29.24", "ai-edge-litert==2.1.0", "tensorflow", "onnx", "onnxruntime"),
    ("onnx2tf", "ai-edge-litert"),
)
TORCH = Compiler("torch", "torch.compile (to_module)", _environment("torch"), ("torch",), largest=30e6)

COMPILERS = (OPENVINO, TVM, IREE, TRACT, NCNN, MNN, LITERT, TORCH)
"""All of them. torch.compile is given the module that `to_module` makes, by the interpreter that runs the study."""
