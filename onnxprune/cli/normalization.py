"""All normalising passes as one, so that the manager checks their result."""

from __future__ import annotations

from onnxprune.ir.model import Model
from onnxprune.passes import Pass, PassResult
from onnxprune.passes import normalize as run_all


class Normalization(Pass):
    """Bring a model into the form that the analysis works on."""

    name = "normalize"

    def run(self, model: Model) -> PassResult:
        """Run them until nothing changes."""
        normal = run_all(model)
        return PassResult(normal, modified=normal is not model)
