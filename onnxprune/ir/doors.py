"""The forms in which others hold a model: bytes, ``onnx_ir.Model``, onnx-graphsurgeon graphs."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError
from onnx import ModelProto

from onnxprune.errors import ModelError, UsageError

if TYPE_CHECKING:
    import onnx_ir


def opened(source: Any) -> str | os.PathLike[str] | ModelProto:
    """A path or a ModelProto as it is; what other libraries hold as a ModelProto.

    Raises:
        ModelError: bytes that are no model, or something else than a model.
    """
    if isinstance(source, (str, os.PathLike, ModelProto)):
        return source
    if isinstance(source, (bytes, bytearray, memoryview)):
        try:
            return ModelProto.FromString(bytes(source))
        except DecodeError as error:
            raise ModelError(f"the bytes are not a valid ONNX model ({error})") from error
    # Who holds an object of a library has imported it: neither has to be looked for.
    ir, surgeon = sys.modules.get("onnx_ir"), sys.modules.get("onnx_graphsurgeon")
    if ir is not None and isinstance(source, ir.Model):
        proto: ModelProto = ir.to_proto(source)
        return proto
    if surgeon is not None and isinstance(source, surgeon.Graph):
        exported: ModelProto = surgeon.export_onnx(source, do_type_check=False)
        return exported
    raise ModelError(
        f"a {type(source).__module__}.{type(source).__qualname__} is no model; give a path, a ModelProto or its bytes, "
        "an onnx_ir.Model or an onnx_graphsurgeon.Graph"
    )


def to_ir(proto: ModelProto) -> onnx_ir.Model:
    """An ``onnx_ir.Model`` of a ModelProto. Raises UsageError where onnx-ir is not installed."""
    try:
        import onnx_ir
    except ImportError as error:
        raise UsageError("this needs onnx-ir: pip install onnx-ir") from error
    return onnx_ir.from_proto(proto)
