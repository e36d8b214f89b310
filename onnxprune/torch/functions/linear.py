"""Matrix products with factors and transpositions."""

from __future__ import annotations

import torch

Tensor = torch.Tensor


def gemm(a: Tensor, b: Tensor, c: Tensor | None, alpha: float, beta: float, trans_a: bool, trans_b: bool) -> Tensor:
    """alpha · a · b + beta · c, with a or b transposed."""
    product = (a.t() if trans_a else a) @ (b.t() if trans_b else b)
    if alpha != 1.0:
        product = _times(product, alpha)
    if c is None:
        return product
    return product + (c if beta == 1.0 else _times(c, beta))


def _times(x: Tensor, factor: float) -> Tensor:
    return x * factor if x.is_floating_point() else (x * factor).to(x.dtype)
