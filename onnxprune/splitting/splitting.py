"""``split``: from a model and a cut to proven parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxprune.data.fidelity import Fidelity, measure_fidelity
from onnxprune.data.samples import Samples
from onnxprune.ir.model import Model
from onnxprune.splitting.chain import costs_of
from onnxprune.splitting.costs import Ledger, PartCost
from onnxprune.splitting.cuts import Cut
from onnxprune.splitting.parts import joined, parts_of
from onnxprune.splitting.proof import SplitCertificate, certify_split
from onnxprune.splitting.wire import Rounding, coded, codes_of
from onnxprune.splitting.writing import write_split


@dataclass(frozen=True)
class Splitting:
    """The parts of a model, and what is known of them.

    Attributes:
        original: the model.
        parts: in the order in which they run.
        cuts: the tensors that cross between two parts that follow each other.
        costs: of the parts.
        coding: how floats cross.
        certificate: the parts, with floats between them, against the whole.
        coded: the parts as they are written against the whole that rounds where they do, and what each receives against
            what was sent; None where nothing is rounded.
        fidelity: what rounding leaves of the answers, where samples were given.
    """

    original: Model
    parts: tuple[Model, ...]
    cuts: tuple[tuple[str, ...], ...]
    costs: tuple[PartCost, ...]
    coding: str
    certificate: SplitCertificate
    coded: SplitCertificate | None = None
    fidelity: Fidelity | None = None

    def to_dict(self) -> dict[str, Any]:
        """What the manifest says beside files and digests."""
        return {
            "wire": {"coding": self.coding, "cuts": [list(cut) for cut in self.cuts]},
            "certificate": self.certificate.to_dict(),
            "coded_certificate": None if self.coded is None else self.coded.to_dict(),
            "fidelity": None if self.fidelity is None else self.fidelity.to_dict(),
            "costs": [cost.to_dict() for cost in self.costs],
        }

    def save(self, folder: Path, **told: Any) -> dict[str, Any]:
        """Write a new folder with the parts and a manifest, which tells what else is ``told``, and is returned."""
        return write_split(folder, self.original, self.parts, {**self.to_dict(), **told})


def split_at(
    original: Model,
    ledger: Ledger,
    cuts: Sequence[Cut],
    *,
    coding: str = "plain",
    ranges: Mapping[str, Rounding] | None = None,
    samples: Samples | None = None,
    reference: Model | None = None,
) -> Splitting:
    """Take a model apart at cuts, each of which holds the one before, and prove the parts.

    Args:
        original: the model as it was given.
        ledger: of its analysis.
        cuts: from the input on.
        coding: how floats cross: ``plain``, ``float16`` or ``int8`` (``packed`` is int8: what carries it packs).
        ranges: of the tensors that cross, for int8.
        samples: what to measure the answers on, where they may differ.
        reference: whose answers they are to be, where that is another model: this one before channels went.

    Raises:
        UsageError: a tensor cannot cross.
        VerificationError: the parts do not give what the whole does, or receive other values than were sent.
    """
    parts = parts_of(ledger, [cut.head for cut in cuts])
    analysis = ledger.analysis
    proof = certify_split(original, analysis, parts)
    proof.require()
    costs = costs_of(ledger, cuts)
    tensors = tuple(cut.tensors for cut in cuts)
    coding = "int8" if coding == "packed" else coding
    second = None
    whole = original
    if coding != "plain":
        codes = codes_of(parts, analysis.model, coding, ranges or {})
        parts = coded(parts, analysis.model, codes)
        whole = joined(analysis.model, parts)
        second = certify_split(whole, analysis, parts, codes=codes, samples=samples)
        second.require()
    fidelity = None
    if samples is not None and whole is not (reference or original):
        fidelity = measure_fidelity(reference or original, whole, samples)
    return Splitting(original, parts, tensors, costs, coding, proof, second, fidelity)
