"""A pipeline of passes as a pass of Olive (``olive-ai``), for its workflows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from olive.model import ONNXModelHandler
from olive.model.utils import resolve_onnx_path
from olive.package_config import OlivePackageConfig
from olive.passes import Pass
from olive.passes.pass_config import PassConfigParam

from onnxprune.passes.pipeline import Pipeline


class OnnxPrune(Pass):  # type: ignore[misc, unused-ignore]
    """Prune, or do what else a pipeline says: ``normalize, prune{mode=flops reduce=0.5}``."""

    @classmethod
    def _default_config(cls, accelerator_spec: Any) -> dict[str, PassConfigParam]:
        return {
            "pipeline": PassConfigParam(
                type_=str, default_value="prune{reduce=0.5}", description="Passes of onnxprune, with options in braces."
            )
        }

    def _run_for_config(self, model: ONNXModelHandler, config: Any, output_model_path: str) -> ONNXModelHandler:
        path = Path(resolve_onnx_path(output_model_path, Path(model.model_path).name))
        path.parent.mkdir(parents=True, exist_ok=True)
        Pipeline.parse(config.pipeline).run(model.model_path).save(path)
        if len(list(path.parent.iterdir())) == 1:
            return ONNXModelHandler(model_path=str(path))
        return ONNXModelHandler(model_path=str(path.parent), onnx_file_name=path.name)  # with its data beside it


def package_config() -> dict[str, Any]:
    """Olive's own passes and OnnxPrune: what ``olive.workflows.run(..., package_config=)`` takes, or a file of it."""
    known: dict[str, Any] = json.loads(Path(OlivePackageConfig.get_default_config_path()).read_text(encoding="utf-8"))
    everywhere = {key: ["*"] for key in ("supported_providers", "supported_accelerators", "supported_precisions")}
    known["passes"][OnnxPrune.__name__] = {"module_path": f"{__name__}.{OnnxPrune.__name__}", **everywhere}
    return known
