"""What a certificate could have noticed: whether any compared tensor tells two kept positions apart.

A wrong index shows only where positions carry different values. For every class of positions that loses some, this
keeps the kept positions in clusters that nothing has told apart so far; a compared tensor splits them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from onnxprune.ir.comparing import scales
from onnxprune.ops.relations import IntArray

FACTOR = 10
"""How many times the tolerance positions have to differ by."""

_COORDINATES = 48
_MOST_EXACT = 64


class Witnesses:
    """The clusters of every class; ``observe`` splits them."""

    def __init__(self, kept: Mapping[int, int], tolerance: float, seed: int = 0) -> None:
        """``kept`` holds how many positions every class that loses some keeps."""
        self._tolerance = FACTOR * tolerance
        self._rng = np.random.default_rng(seed)
        self._clusters: dict[int, list[IntArray]] = {
            owner: [np.arange(count)] for owner, count in kept.items() if count > 1
        }

    @property
    def open(self) -> frozenset[int]:
        """The classes with positions that nothing has told apart."""
        return frozenset(self._clusters)

    def clusters(self, owner: int) -> list[IntArray]:
        """The positions, counted among the kept ones, that nothing tells apart."""
        return self._clusters.get(owner, [])

    def forgive(self, owner: int, same: Iterable[IntArray]) -> None:
        """Positions that are equal by themselves need not be told apart: ``same`` replaces the clusters."""
        self._keep(owner, same)

    def observe(self, owner: int, array: NDArray[Any], dim: int) -> None:
        """A compared tensor whose dimension ``dim`` counts the kept positions of a class."""
        clusters = self._clusters.get(owner)
        if clusters is None or array.dtype.kind not in "fiub" or not array.size:
            return
        rows = np.moveaxis(array, dim, 0)
        measure = scales(array, dim)
        allowed = measure.allowed(self._tolerance)
        finer = [part for cluster in clusters for part in self._split(rows, cluster, allowed)]
        self._keep(owner, finer)

    def _keep(self, owner: int, clusters: Iterable[IntArray]) -> None:
        left = [cluster for cluster in clusters if len(cluster) > 1]
        if left:
            self._clusters[owner] = left
        else:
            self._clusters.pop(owner, None)

    def _split(self, rows: NDArray[Any], cluster: IntArray, allowed: NDArray[np.float64]) -> list[IntArray]:
        """The parts of a cluster between whose positions this tensor differs by more than is allowed."""
        inner = rows.shape[1:]
        size = int(np.prod(inner))
        places = np.arange(size) if size <= _COORDINATES else self._rng.choice(size, _COORDINATES, replace=False)
        at = np.unravel_index(places, inner) if inner else ()
        place = (cluster[:, None], *(index[None, :] for index in at))
        sample = rows[place] if inner else rows[cluster]
        points = np.asarray(sample, dtype=np.float64).reshape(len(cluster), -1)
        if not np.isfinite(points).all():
            return [cluster]
        limit = float(allowed[cluster].max())
        distinct, of = np.unique(points, axis=0, return_inverse=True)
        if len(distinct) == 1:
            parts = [cluster]
        else:
            from scipy.spatial import cKDTree  # slow to import

            pairs = cKDTree(distinct).query_pairs(limit, p=np.inf, output_type="ndarray")
            linked = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(distinct),) * 2)
            _, label = connected_components(linked, directed=False)
            label = label[of.reshape(-1)]
            order = np.argsort(label, kind="stable")
            parts = np.split(cluster[order], np.flatnonzero(np.diff(label[order])) + 1)
        return [small for part in parts for small in self._split_exactly(rows, part, allowed)]

    def _split_exactly(self, rows: NDArray[Any], cluster: IntArray, allowed: NDArray[np.float64]) -> list[IntArray]:
        """The same by all elements, and by what is allowed for the two channels in question, for small clusters."""
        if len(cluster) < 2 or len(cluster) > _MOST_EXACT:
            return [cluster]
        values = rows[cluster].reshape(len(cluster), -1).astype(np.float64, copy=False)
        near: list[tuple[int, int]] = []
        for i in range(len(cluster) - 1):
            with np.errstate(invalid="ignore"):
                gaps = np.abs(values[i + 1 :] - values[i]).max(axis=1)
            limits = np.maximum(allowed[cluster[i + 1 :]], allowed[cluster[i]])
            near += [(i, i + 1 + int(j)) for j in np.flatnonzero(~(gaps > limits))]
        pairs = np.array(near, dtype=np.int64).reshape(-1, 2)
        linked = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(cluster),) * 2)
        count, label = connected_components(linked, directed=False)
        return [cluster[label == part] for part in range(count)]
