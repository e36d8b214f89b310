"""OpenVINO, on the processor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxprune.ir.runtimes import Program, Shapes

#: What onnx calls the operators whose time latency mode has to tell apart, and what only converts layouts.
_ONNX_TYPES = {
    "Convolution": "Conv",
    "GroupConvolution": "Conv",
    "ConvolutionBackpropData": "ConvTranspose",
    "GroupConvolutionBackpropData": "ConvTranspose",
    "Deconvolution": "ConvTranspose",
    "FullyConnected": "Gemm",
    "Reorder": "ReorderInput",
}


class OpenVino:
    """One stream of inference on the processor, in single precision."""

    name = "openvino"
    profiles = True

    def version(self) -> str:
        """As the package tells it, without the build."""
        import openvino

        return str(openvino.__version__).split("-")[0]

    def compile(self, source: Path | bytes, shapes: Shapes, *, threads: int, profile: bool) -> Program:
        """See :class:`~onnxprune.ir.runtimes.Runtime`."""
        import openvino

        core = openvino.Core()
        model = core.read_model(source)
        model.reshape({name: list(shape) for name, shape in shapes.items()})
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "PERF_COUNT": profile,
        }
        return _Program(core.compile_model(model, "CPU", settings).create_infer_request())


class _Program:
    def __init__(self, request: Any) -> None:
        self._request, self._runs = request, 0

    def run(self, inputs: Mapping[str, Any]) -> list[Any]:
        self._runs += 1
        return list(self._request.infer(dict(inputs), share_inputs=True, share_outputs=True).values())

    def nodes(self) -> list[tuple[str, str, float]]:
        # What it tells is the mean over all runs, in whole microseconds.
        return [
            (
                info.node_name,
                _ONNX_TYPES.get(info.node_type, info.node_type),
                info.real_time.total_seconds() * self._runs,
            )
            for info in self._request.profiling_info
            if info.status == info.Status.EXECUTED
        ]
