"""Sequences and optionals that normalisation could not replace by what is in them (see ``passes.resolve_sequences``).

Which element is read, or how many there are, is decided by data: whatever goes in or comes out stays as it is.
"""

from __future__ import annotations

from typing import ClassVar

from onnxprune.ops.base import Operator
from onnxprune.ops.generators import Held


class Sequences(Held):
    """Operators on sequences and optionals: every axis of the elements stays."""

    reasons: ClassVar[dict[str, str]] = {
        "ConcatFromSequence": "joins elements that are chosen at run time",
        "Optional": "holds a value that need not be there",
        "OptionalGetElement": "reads a value that need not be there",
        "OptionalHasElement": "asks for a value that need not be there",
        "SequenceAt": "reads an element that is chosen at run time",
        "SequenceConstruct": "makes a sequence that is read at run time",
        "SequenceEmpty": "makes a sequence that is read at run time",
        "SequenceErase": "changes a sequence at run time",
        "SequenceInsert": "changes a sequence at run time",
        "SequenceLength": "counts elements at run time",
        "SequenceMap": "runs a body on elements that are not known beforehand",
        "SplitToSequence": "makes a sequence that is read at run time",
    }
    types = tuple(reasons)


OPERATORS: tuple[Operator, ...] = (Sequences(),)
