"""Layers whose output meets another activation in a product, as queries meet keys: what they can make good for it.

Where columns of both operands go, the product is kept best not by the columns that stay but by mixtures of all of them
(see ``data.pairs``). The layer that makes an operand is fitted to these.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from onnxprune.data.pairs import Pair, grams
from onnxprune.ops.layers import LinearLayer, linear_layer
from onnxprune.ops.relations import IntArray
from onnxprune.pruning.compensation.gathering import Mixture, Walk

FloatArray = NDArray[np.float64]

#: Rows of the other operand that are looked at, about.
_ROWS = 1 << 14
#: Ridge, as a share of the mean square.
_RIDGE = 1e-3
#: How far numbers of channels may come out from whole numbers.
_ROUNDING = 0.05


def mixes(walk: Walk, layer: LinearLayer) -> bool:
    """Whether the layer's output loses columns that a product contracts."""
    if not walk.removed.get(layer.output, {}).get(layer.out_dim):
        return False
    return any(walk.removed.get(pair.tensor, {}).get(pair.dim) for pair in _read_by(walk, layer))


def mixture_for(walk: Walk, layer: LinearLayer) -> Mixture | None:
    """What the layer should give for the products that read it, where these lose columns; else None.

    Both walks stand at the layer, with its output in the original.
    """
    gone = walk.removed.get(layer.output, {}).get(layer.out_dim, ())
    found = list(_read_by(walk, layer)) if len(gone) else []
    width = walk.original.values(layer.output)[0].shape[layer.out_dim]
    kept = np.delete(np.arange(width), gone)
    matrix, offset = np.eye(width)[:, kept], np.zeros(len(kept))
    changed = False
    done: set[int] = set()
    for pair in found:
        lost = walk.removed.get(pair.tensor, {}).get(pair.dim, ())
        # Were both operands of one product mixtures, each would make good what the other one does.
        if not len(lost) or pair.node in done:
            continue
        carried = _carried(walk, layer, pair)
        if carried is None:
            continue
        channels, bias = carried
        stay = np.delete(np.arange(channels.shape[1]), lost)
        places = np.searchsorted(kept, channels[:, stay])
        if not np.array_equal(kept[np.minimum(places, len(kept) - 1)], channels[:, stay]):
            continue
        mixing = _mixing(walk, pair, stay)
        if mixing is None or mixing.shape != (len(channels), channels.shape[1], len(stay)):
            continue
        for own, to, share, added in zip(channels, places, mixing, bias, strict=True):
            matrix[:, to] = 0.0
            matrix[np.ix_(own, to)] = share
            offset[to] = added @ share - added[stay]
        done.add(pair.node)
        changed = True
    return Mixture(matrix, offset) if changed else None


def _read_by(walk: Walk, layer: LinearLayer) -> Iterator[Pair]:
    """The products that a layer's output reaches without another layer between."""
    known = {(pair.node, pair.tensor): pair for pair in walk.products}
    ends = {pair.node for pair in known.values()}
    behind, stop = {layer.output}, max(ends, default=-1)
    for node in walk.graph.nodes[layer.node + 1 : stop + 1]:
        read = behind.intersection(node.inputs)
        if node.index in ends:
            yield from (known[node.index, name] for name in read)
        elif read and linear_layer(node) is None:
            behind.update(name for name in node.outputs if name)


def _carried(walk: Walk, layer: LinearLayer, pair: Pair) -> tuple[IntArray, FloatArray] | None:
    """The channel of the layer at each head and position [H, D] of the operand, and what is added to it on the way.

    None where what lies between does more than carry channels, scale all of them alike, and add constants.
    """
    like = walk.original.values(layer.output)[0]
    shape = [-1 if dim == layer.out_dim else 1 for dim in range(like.ndim)]
    numbers = np.broadcast_to(np.arange(like.shape[layer.out_dim], dtype=like.dtype).reshape(shape), like.shape)
    given = (np.zeros_like(like), np.ones_like(like), np.ascontiguousarray(numbers), -numbers)
    results = [walk.original.ahead(pair.tensor, 1, {layer.output: values}) for values in given]
    zero, one, up, down = (None if result is None else pair.own(result[0].astype(np.float64)) for result in results)
    if zero is None or one is None or up is None or down is None:
        return None
    scale = one - zero
    if not (np.abs(scale) > 0).all() or np.ptp(scale) > 1e-3 * np.abs(scale).max():
        return None
    channels = np.rint((up - zero) / scale)
    exact = (up - zero) / scale - channels, (down - zero) / scale + channels
    table, bias = channels[0, :, 0], (zero / scale)[0, :, 0]
    alike = (channels == table[:, None]).all() and np.allclose(zero / scale, bias[:, None], atol=1e-4)
    if not alike or max(float(np.abs(rest).max()) for rest in exact) > _ROUNDING:
        return None
    return table.astype(np.int64), bias


def _mixing(walk: Walk, pair: Pair, stay: IntArray) -> FloatArray | None:
    """For each head, the kept columns as mixtures of all: [H, D, kept]."""
    first = walk.original.ahead(pair.other, 1)
    if first is None:
        return None
    batches = -(-_ROWS // max(first[0].size // first[0].shape[pair.other_dim], 1))
    wanted, found = walk.original.ahead(pair.other, batches), walk.pruned.ahead(pair.other, batches)
    if wanted is None or found is None:
        return None
    full, less = [pair.partner(values) for values in wanted], [pair.partner(values) for values in found]
    if less[0].shape[3] != len(stay):
        return None
    across, among = grams(full, less), grams(less, less)
    diagonal = np.arange(len(stay))
    scale = np.einsum("hdd->h", among) / len(stay)
    among[:, diagonal, diagonal] += np.maximum(_RIDGE * scale, 1e-12)[:, None]
    mixing: FloatArray = np.linalg.solve(among, across.swapaxes(1, 2)).swapaxes(1, 2)
    return mixing
