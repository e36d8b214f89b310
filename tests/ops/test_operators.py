"""Every operator, at every opset that revised it: prune random atoms, and demand the certificate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

import onnxprune
from onnxprune.analysis.analyzing import Analysis
from onnxprune.analysis.atoms import Grouping
from onnxprune.ir.control_flow import DOMAIN
from onnxprune.ops import default_registry
from tests.helpers import GraphBuilder, prune_random
from tests.ops import aggregating, contraction, elementwise, rearranging, selecting
from tests.ops.case import Case

_FAMILIES = (elementwise, contraction, rearranging, selecting, aggregating)
CASES: tuple[Case, ...] = tuple(case for family in _FAMILIES for case in family.CASES)


def _revisions() -> dict[tuple[str, str], set[int]]:
    found: dict[tuple[str, str], set[int]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        found.setdefault((schema.domain, schema.name), set()).add(schema.since_version)
    return found


def _combinations() -> Iterator[tuple[Case, int]]:
    revisions = _revisions()
    for case in CASES:
        opsets = {opset for operator in case.operators for opset in _tested(case, revisions[case.domain, operator])}
        yield from ((case, opset) for opset in sorted(opsets))


def _tested(case: Case, revisions: set[int]) -> set[int]:
    """The opsets of a case's range at which the operator changed, and the range's first one that has it."""
    first = max(case.since, min(revisions))
    return {opset for opset in {first, *revisions} if first <= opset <= case.until}


@pytest.mark.parametrize(("case", "opset"), list(_combinations()), ids=str)
def test_operator_keeps_its_promise(case: Case, opset: int) -> None:
    """What the analysis lets go may go, and what the case expects is what it lets go."""
    g = GraphBuilder(opset, seed=opset)
    case.build(g)
    model = g.model()
    _assert_expected(case, onnxprune.analyze(model))
    for seed, (share, grouping) in enumerate(
        ((1.0, Grouping.ALIGNED), (0.5, Grouping.BALANCED), (0.5, Grouping.WHOLE), (None, Grouping.ALIGNED))
    ):
        prune_random(model, seed, share, grouping=grouping)


def _assert_expected(case: Case, analysis: Analysis) -> None:
    first = analysis.layers[0]
    reasons = "; ".join(first.pinned)
    assert case.none_left or not analysis.unknown, f"not understood: {analysis.unknown}"
    assert case.pinned in reasons, f"expected a pin with '{case.pinned}', got '{reasons}'"
    assert bool(case.pinned) or not first.pinned, f"unexpected pins: {reasons}"
    if case.none_left:
        assert first.prunable == 0
        return
    assert first.prunable > 0, f"nothing of the first layer may go: {reasons}"
    if not case.pinned:
        assert first.prunable == first.channels
    approximate = [analysis.groups[index].approximate for index in first.groups]
    assert all(not reason for reason in approximate) if case.exact else any(approximate), str(approximate)


def test_every_operator_has_a_case() -> None:
    """Whoever registers an operator tests it: by a case, or by name in a test module beside this one."""
    known = {(domain, op_type) for domain, op_type, _, _ in default_registry().supported()}
    known = {(domain, op_type) for domain, op_type in known if domain != DOMAIN}  # tests/ops/test_control_flow.py
    covered = {(case.domain, operator) for case in CASES for operator in case.operators}
    assert not covered - known, f"cases for operators that nobody registered: {sorted(covered - known)}"
    tests = "".join(path.read_text() for path in sorted(Path(__file__).parent.glob("test_*.py")))
    missing = sorted((domain, op) for domain, op in known - covered if f'"{op}"' not in tests)
    assert not missing, f"operators without a test: {missing}"
