"""Learning what to remove: gates on channels, branches and activations, trained with the weights under a budget.

:func:`learn_gates` trains, and hands what closed to the ordinary removal and its certificate.
"""

from onnxprune.pruning.gating.candidates import GATED, Candidates, candidates
from onnxprune.pruning.gating.training import GatedTraining, learn_gates

__all__ = ["GATED", "Candidates", "GatedTraining", "candidates", "learn_gates"]
