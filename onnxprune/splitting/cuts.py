"""Where a graph can be cut in two: small sets of tensors that separate what is computed first from the rest.

A cut is told by its head, a set of nodes that holds all that its nodes need; the tensors on the wire are those that
the rest reads of it. Weights and what follows from them alone are everywhere and never cross. What a body captures is
read by its node. Graph inputs begin at the head: those that the rest reads cross as they are.

Sets of nodes and of tensors are integers, bit i for the i-th: a thousand are united in a few machine words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from onnxprune._display import some
from onnxprune.errors import UsageError
from onnxprune.ir.graph import Graph

MOST_CUTS = 4000
"""Cuts that are looked at; where there are more, fewer tensors are allowed."""
_STEPS = 400_000


@dataclass(frozen=True)
class Cut:
    """The tensors on the wire, in the order in which they are made, and the nodes of the head (bit i: node i)."""

    tensors: tuple[str, ...]
    head: int


@dataclass(frozen=True)
class Cuts:
    """All cuts of up to ``most`` tensors, the smallest heads first; ``note`` says why none, or why not of more."""

    found: tuple[Cut, ...]
    most: int
    note: str = ""


class Flow:
    """Which computing nodes make and read which tensors, and what depends on what."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        #: Nodes whose results follow from data: all but what weights alone determine.
        self.computing = [n.index for n in graph.nodes if not graph.constants.issuperset(o for o in n.outputs if o)]
        self.all = sum(1 << index for index in self.computing)
        made = (name for index in self.computing for name in graph.nodes[index].outputs if name)
        self.tensors = tuple(dict.fromkeys((*graph.inputs, *made)))
        self.order = {name: place for place, name in enumerate(self.tensors)}
        self.inputs = self.set_of(graph.inputs)
        self.reads = {i: self.set_of(n for n in graph.nodes[i].reads if n in self.order) for i in self.computing}
        self.makes = {i: self.set_of(n for n in graph.nodes[i].outputs if n) for i in self.computing}
        #: Each node with all that it needs, and with all that needs it; and what the latter read.
        self.needs: dict[int, int] = {}
        self.needed: dict[int, int] = {}
        self.read_on: dict[int, int] = {}
        for index in self.computing:
            before = (graph.producer.get(name, -1) for name in graph.nodes[index].reads)
            self.needs[index] = 1 << index
            for maker in before:
                self.needs[index] |= self.needs.get(maker, 0)
        for index in reversed(self.computing):
            self.needed[index], self.read_on[index] = 1 << index, self.reads[index]
            for name in graph.nodes[index].outputs:
                for reader in graph.consumers.get(name, ()):
                    self.needed[index] |= self.needed[reader]
                    self.read_on[index] |= self.read_on[reader]

    def set_of(self, names: Iterator[str] | Sequence[str]) -> int:
        """A set of tensors."""
        return sum({1 << self.order[name] for name in names})

    def names(self, tensors: int) -> tuple[str, ...]:
        """The tensors of a set, in the order in which they are made."""
        return tuple(self.tensors[place] for place in bits(tensors))

    def behind(self, tensors: Sequence[str]) -> int:
        """The nodes that tensors need."""
        found = 0
        for name in tensors:
            found |= self.needs.get(self.graph.producer.get(name, -1), 0)
        return found

    def border(self, head: int) -> tuple[str, ...]:
        """What the rest reads of a head and of the graph inputs, in the order in which it is made."""
        made, read = self.inputs, 0
        for index in self.computing:
            if head >> index & 1:
                made |= self.makes[index]
            else:
                read |= self.reads[index]
        return self.names(made & read)


def find_cuts(flow: Flow, most: int = 3) -> Cuts:
    """All cuts of at most so many tensors; of fewer, where there are too many of these."""
    for count in range(most, 0, -1):
        found = _search(flow, count, patient=count == 1)
        if found is None:
            continue
        note = (
            "" if count == most else f"there are too many cuts of {count + 1} tensors; those of up to {count} are here"
        )
        if not found:
            note = _why_none(flow, most)
        return Cuts(tuple(sorted(found, key=lambda cut: (cut.head.bit_count(), cut.head))), count, note)
    raise AssertionError("a search for single tensors always ends")


def cut_at(flow: Flow, tensors: Sequence[str]) -> Cut:
    """The cut of these tensors, however many: the head is what they need.

    Raises:
        UsageError: they are no cut; the message says what else would have to cross, or what need not.
    """
    unknown = [name for name in tensors if name not in flow.order]
    if unknown:
        raise UsageError(f"the model computes no tensor '{unknown[0]}'; 'onnxprune split MODEL --every' lists the cuts")
    head = flow.behind(tensors)
    missing = [name for name in flow.border(head) if name not in tensors]
    if missing or not head or head == flow.all:
        why = f"{some(missing)} would have to cross, too" if missing else "all is on one side of it"
        raise UsageError(
            f"{', '.join(tensors)} is no cut: {why}; name all, or take one of 'onnxprune split MODEL --every'"
        )
    border = flow.border(head)
    needless = [name for name in tensors if name not in border]
    if needless:
        alone = f"name only {', '.join(border)}" if border else "nothing would cross there"
        raise UsageError(f"{', '.join(tensors)} is no cut: the rest does not read {some(needless)}; {alone}")
    return Cut(border, head)


def bits(members: int) -> Iterator[int]:
    """The numbers of the members of a set."""
    while members:
        low = members & -members
        yield low.bit_length() - 1
        members ^= low


def _search(flow: Flow, most: int, patient: bool) -> list[Cut] | None:
    """Decide of one node after the other whether it is in the head; if not, nothing that needs it is.

    Each decision parts what is left to be found, so that no cut is found twice; what crosses only ever grows. None
    where it takes too long.
    """
    found: list[Cut] = []
    stack = [(flow.all, 0, flow.inputs, 0)]
    steps = 0
    while stack:
        undecided, head, made, read = stack.pop()
        steps += 1
        if not patient and (steps > _STEPS or len(found) > MOST_CUTS):
            return None
        if not undecided:
            if head and head != flow.all:
                found.append(Cut(flow.names(made & read), head))
            continue
        index = (undecided & -undecided).bit_length() - 1
        node = 1 << index
        more = made | flow.makes[index]
        if (more & read).bit_count() <= most:
            stack.append((undecided ^ node, head | node, more, read))
        beyond = read | flow.read_on[index]
        if (made & beyond).bit_count() <= most:
            stack.append((undecided & ~flow.needed[index], head, made, beyond))
    return found


def _why_none(flow: Flow, most: int) -> str:
    """What stands in the way of any cut."""
    if len(flow.computing) < 2:
        return "there are fewer than two nodes that compute something of the inputs"
    head, least = 0, (len(flow.tensors) + 1, "")
    for index in flow.computing[:-1]:
        head |= 1 << index
        least = min(least, (len(flow.border(head)), flow.graph.nodes[index].name))
    return (
        f"every cut has more than {most} tensors: the narrowest, behind '{least[1]}', has {least[0]}; "
        f"allow that many (--most {least[0]})"
    )
