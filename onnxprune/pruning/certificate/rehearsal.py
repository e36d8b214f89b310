"""Asking the certificate of many files that differ little from one that it has passed.

The values of one run are kept, so that only the parts of a file that differ have to be made again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxprune.ir.comparing import TensorDifference
from onnxprune.ir.model import Model
from onnxprune.ir.session import Arrays
from onnxprune.pruning.certificate.cells import Alive, Cells
from onnxprune.pruning.certificate.certifier import Certifier, Findings
from onnxprune.pruning.certificate.flat import flatten
from onnxprune.pruning.certificate.witnesses import Witnesses


class Rehearsal:
    """A file that passed, and the values that all tensors of the masked original had on one input."""

    def __init__(self, certifier: Certifier, passed: Model, inputs: Arrays) -> None:
        """Raises VerificationError where onnxruntime refuses the masked original."""
        self._certifier = certifier
        self._passed = flatten(passed)
        self._values: Mapping[str, Any]
        self._alive: Alive
        self._values, self._alive = certifier.values(self._cells(passed), inputs)

    def differing(self, candidate: Model) -> tuple[TensorDifference, ...]:
        """The tensors of a candidate that are not what they should be.

        Raises:
            VerificationError: onnxruntime refuses the candidate.
        """
        cells = self._cells(candidate)
        changed = Cells(cells.flat, self._passed, cells.what, cells.shared)
        order = self._certifier.in_order(cells.shared)
        names = [name for name in order if changed.differs(changed.part(name))]
        findings, nobody = Findings({}, {}), Witnesses({}, 1.0)
        certifier = self._certifier
        certifier.compare_made(cells, names, self._values, self._alive, findings, nobody)
        for positive in (False, True):
            if all(difference.passed for difference in findings.differences.values()):
                certifier.compare_fed(cells, names, dict(self._values), findings, nobody, positive=positive)
        if all(difference.passed for difference in findings.differences.values()):
            certifier.compare_elsewhere(cells, names, findings, nobody)
        return tuple(difference for difference in findings.differences.values() if not difference.passed)

    def changed_weights(self, candidate: Model) -> tuple[str, ...]:
        """Weights of a candidate that are not the original's at the kept positions."""
        return self._certifier.changed_weights(self._cells(candidate))

    def _cells(self, model: Model) -> Cells:
        return self._certifier.cells(model)
