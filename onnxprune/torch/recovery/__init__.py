"""Recovery without labels: the original teaches the pruned model, block by block and then as a whole."""

from onnxprune.torch.recovery.following import Followed, State, Teaching, follow

__all__ = ["Followed", "State", "Teaching", "follow"]
