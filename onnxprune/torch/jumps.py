"""Running a module beside onnxruntime where values jump: thresholds, signs, rounding.

Two sums in different orders differ in their last places; a neuron whose potential is that near to its threshold fires
in one of them only, and from there on everything differs. So both go on from the same decisions, and those are held to
what went into them: each has to be what the module decides of these values or of some that are hardly different.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from onnxprune.errors import VerificationError
from onnxprune.torch.module import OnnxModule

_FAR = 100
"""What is so many times the median is a mask, or none of the values that decide."""


def replayed(
    module: OnnxModule, inputs: Sequence[Tensor], decided: Mapping[str, NDArray[Any]], tolerance: float
) -> list[Tensor]:
    """What a module gives if it decides as onnxruntime did.

    Args:
        module: with :attr:`~OnnxModule.onnx_jumps`.
        inputs: its arguments.
        decided: by tensor, what onnxruntime has made; jumps that are not there are the module's own.
        tolerance: how much the operands of a jump may be off, as a share of the largest of their values.

    Raises:
        VerificationError: onnxruntime has decided something that no such values give.
    """
    forced = {node: decided[name] for node, name in module.onnx_jumps.items() if name in decided}
    replay = _Replay(module, forced, tolerance)
    with torch.no_grad():
        found = replay.run(*inputs)
    if replay.fault is not None:
        raise VerificationError(f"{replay.fault}; nothing was written")
    return [found] if isinstance(found, Tensor) else list(found)


class _Replay(fx.Interpreter):
    """Runs a module with decisions that are given."""

    def __init__(self, module: OnnxModule, forced: Mapping[str, NDArray[Any]], tolerance: float) -> None:
        super().__init__(module)
        self._forced, self._tolerance, self._names = forced, tolerance, module.onnx_jumps
        self.fault: str | None = None

    def run_node(self, n: fx.Node) -> Any:
        if n.name not in self._forced:
            return super().run_node(n)
        operands, _ = self.fetch_args_kwargs_from_env(n)
        wanted = torch.from_numpy(np.array(self._forced[n.name]))
        assert callable(n.target)
        nearby = torch.stack([n.target(*moved).double() for moved in self._moved(operands)])
        low, high, got = nearby.amin(0), nearby.amax(0), wanted.double()
        wrong = int((~((low <= got) & (got <= high))).sum()) if got.shape == low.shape else got.numel()
        if wrong and self.fault is None:
            self.fault = (
                f"tensor '{self._names[n.name]}' of the trained model differs in onnxruntime from PyTorch "
                f"at {wrong} of {got.numel()} positions, and not for rounding"
            )
        return wanted

    def _moved(self, operands: Sequence[Any]) -> list[tuple[Any, ...]]:
        """The operands as they are, and the first one moved both ways by what the two sums may differ."""
        first, *others = operands
        if not isinstance(first, Tensor) or not first.is_floating_point():
            return [(first, *others)]
        # The usual size of what is compared, not the largest: a mask of -1e38 would excuse every decision beside it.
        sizes = first.detach().abs().flatten()
        sizes = sizes[torch.isfinite(sizes) & (sizes > 0)]
        usual = min(float(sizes.max()), _FAR * float(sizes.median())) if sizes.numel() else 0.0
        gap = self._tolerance * max(usual, 1e-6)
        return [(first + move, *others) for move in (0.0, gap, -gap)]
