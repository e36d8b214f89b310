"""Learning which parts of a model to keep, by gates: :func:`learn`."""

from onnxprune.torch.gates.learning import Learned, Learning, Moment, learn
from onnxprune.torch.gates.spec import Complexity, Gates, GateVector

__all__ = ["Complexity", "GateVector", "Gates", "Learned", "Learning", "Moment", "learn"]
