"""Recovery without labels: the original teaches the pruned model, block by block and then as a whole."""

from onnxprune.torch.recovery.following import Followed, State, Teaching, follow
from onnxprune.torch.recovery.keeping import Keeping

__all__ = ["Followed", "Keeping", "State", "Teaching", "follow"]
