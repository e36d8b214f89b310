"""Graph-rewriting passes, one per file.

``manager.PassManager`` runs them in sequence and can check after each; ``registry.available_passes`` finds them
by name, those of other packages included (entry-point group ``onnxprune.passes``). To write one, subclass
``Pass``, or ``GraphPass`` for the editable onnx-graphsurgeon graph.
"""

from onnxprune.passes.base import GraphPass, Pass, PassResult
from onnxprune.passes.normalize import NORMALIZATION, NORMALIZER, normalize

__all__ = ["NORMALIZATION", "NORMALIZER", "GraphPass", "Pass", "PassResult", "normalize"]
