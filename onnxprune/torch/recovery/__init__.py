"""Recovery without labels: the original teaches the pruned model, block by block and then as a whole."""

from onnxprune.torch.recovery.checkpoints import Checkpoint
from onnxprune.torch.recovery.following import Followed, State, Teaching, follow

__all__ = ["Checkpoint", "Followed", "State", "Teaching", "follow"]
