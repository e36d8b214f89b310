"""Quantisation in onnxruntime's own domain, which says what ONNX's says."""

from __future__ import annotations

from onnxprune.torch.base import Converter
from onnxprune.torch.ops.quantized import convert_dequantize, convert_quantize

CONVERTERS = (
    Converter("DequantizeLinear", convert_dequantize, domain="com.microsoft"),
    Converter("QuantizeLinear", convert_quantize, domain="com.microsoft"),
)
