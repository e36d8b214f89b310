"""Real models of many exporters, pruned by the same commands and compared with their masked originals.

At every change a few small models are pruned by half; `pytest -m zoo` prunes all of them, in every mode and at
every level. Models are fetched or exported once, see `sources` and `networks`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
import pytest

import onnxprune

from .independent import costs, difference, masked, noise, run, telling, weights_that_differ
from .sources import UnavailableError
from .subjects import ALL, DYNAMIC, QUICK, Subject

pytestmark = pytest.mark.zoo

MODES = ("pa", "fa", "ma")
LEVELS = (0.3, 0.5, 0.7)
TOLERANCE = 1e-4
MOST_BEYOND = 0.025
"""How much more than asked for may go."""
COARSE = {"light_shufflenet": 0.045}
"""The same for networks whose steps are large: grouped convolutions whose groups (of 28 and of 34 channels) overlap
tie many channels of the residual stream together."""

LARGEST_LEFT = {
    "resnet50": 0.26,
    "densenet121": 0.265,
    "efficientnet_b0": 0.294,
    "mobilenet_v3_small": 0.328,
    "regnet_y_3_2gf": 0.259,
    "googlenet": 0.276,
    "shufflenet_v2_x1_0": 0.34,
    "rapidocr_det": 0.30,
    "rapidocr_cls": 0.334,  # 30 % of it are depthwise, which half of all channels halves and no more
    "mtcnn_pnet": 0.40,
    "mtcnn_rnet": 0.40,
    "mtcnn_onet": 0.40,
}
"""Shares of the multiply-accumulates that channels=0.5 may leave: half a point above what a complete coupling
analysis of the PyTorch module leaves, or targets of our own."""


def parameters(subjects: Iterable[Subject]) -> list[object]:
    """The models as test parameters, those that take long marked as slow."""
    return [
        pytest.param(subject, id=subject.name, marks=() if subject.name in QUICK else pytest.mark.slow)
        for subject in subjects
    ]


@pytest.fixture
def model(subject: Subject) -> onnx.ModelProto:
    """The model of the test's subject; the test is skipped where it cannot be fetched."""
    try:
        return subject.load()
    except UnavailableError as error:
        pytest.skip(str(error))


def _prune(
    model: onnx.ModelProto, subject: Subject, settings: Iterable[tuple[str, float]]
) -> Iterator[tuple[onnxprune.Analysis, onnxprune.Plan, onnxprune.Model]]:
    """Analyse once; for every (mode, level) plan, apply and demand the certificate."""
    source, shapes = onnxprune.load(model), subject.shapes()
    analysis = onnxprune.analyze(source, shapes)
    for number, (mode, level) in enumerate(settings):
        plan = onnxprune.plan(analysis, mode=mode, reduce=level)
        # That the normalised model equals the original need be certified once only.
        source = analysis.model if number else source
        pruned = onnxprune.apply(source, plan)
        certificate = onnxprune.verify(source, pruned, plan, input_shapes=shapes)
        assert certificate.complete, f"{mode} {level}: {certificate.sentences}"
        assert certificate.approximate == _normalises_across_channels(model)
        assert certificate.max_relative <= TOLERANCE
        yield analysis, plan, pruned


def _normalises_across_channels(model: onnx.ModelProto) -> bool:
    """Whether a channel's value depends on its neighbours': then masked and pruned models differ by design."""
    return any(node.op_type == "LRN" for node in model.graph.node)


def _check_files(subject: Subject, normal: onnx.ModelProto, plan: onnxprune.Plan, result: onnx.ModelProto) -> None:
    """Weights and outputs of a pruned model by means that owe nothing to the library but `Plan.removed`."""
    assert weights_that_differ(normal, plan.removed, result) == []
    feeds, names = noise(normal, subject.shapes()), telling(normal)
    found = run(result, feeds, names)
    if not _normalises_across_channels(normal):
        assert difference(run(masked(normal, plan.removed), feeds, names), found) <= TOLERANCE


def _check_budget(
    subject: Subject, before: dict[str, int], plan: onnxprune.Plan, result: onnx.ModelProto, level: float
) -> None:
    """The plan's totals are what an independent counter finds, and no more goes than was asked for."""
    after, metric = costs(result, subject.shapes()), str(plan.settings["mode"])
    # Fix-ups of shape arithmetic may add a few integers, which take some bytes.
    assert plan.after[metric] == pytest.approx(after[metric], rel=1e-3 if metric == "memory" else 0)
    assert plan.before[metric] == pytest.approx(before[metric], rel=0)
    beyond = COARSE.get(subject.name, MOST_BEYOND)
    assert level <= 1 - after[metric] / before[metric] <= level + beyond


@pytest.mark.parametrize("subject", parameters(s for s in ALL if s.name in QUICK))
def test_half_of_a_small_model_goes(subject: Subject, model: onnx.ModelProto) -> None:
    ((analysis, plan, pruned),) = _prune(model, subject, [("fa", 0.5)])
    normal, result = analysis.model.to_proto(), pruned.to_proto()
    _check_files(subject, normal, plan, result)
    _check_budget(subject, costs(normal, subject.shapes()), plan, result, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("subject", parameters(ALL))
def test_every_mode_at_every_level(subject: Subject, model: onnx.ModelProto) -> None:
    settings = [(mode, level) for mode in MODES for level in LEVELS]
    normal = onnxprune.normalize(model).to_proto()
    before = costs(normal, subject.shapes())
    for (_, level), (_, plan, pruned) in zip(settings, _prune(model, subject, settings), strict=True):
        result = pruned.to_proto()
        _check_budget(subject, before, plan, result, level)
        if level == 0.5:
            _check_files(subject, normal, plan, result)


@pytest.mark.parametrize("subject", parameters(s for s in ALL if s.network in LARGEST_LEFT))
def test_half_of_all_channels_leaves_as_little_as_promised(subject: Subject, model: onnx.ModelProto) -> None:
    shapes = subject.shapes()
    analysis = onnxprune.analyze(model, shapes)
    plan = onnxprune.plan(analysis, channels=0.5)
    pruned = onnxprune.apply(model, plan)
    left = costs(pruned.to_proto(), shapes)["flops"] / costs(analysis.model.to_proto(), shapes)["flops"]
    assert left <= LARGEST_LEFT[subject.network]


@pytest.mark.parametrize("subject", parameters(DYNAMIC))
def test_what_is_dynamic_stays_dynamic(subject: Subject, model: onnx.ModelProto) -> None:
    ((analysis, plan, pruned),) = _prune(model, subject, [("fa", 0.5)])
    result, normal = pruned.to_proto(), analysis.model.to_proto()
    assert _extents(result) == _extents(model)
    reference, names = masked(normal, plan.removed), telling(normal)
    for shapes in _other_shapes(model, subject):
        feeds = noise(model, shapes)
        assert difference(run(reference, feeds, names), run(result, feeds, names)) <= TOLERANCE


def _extents(model: onnx.ModelProto) -> dict[str, list[int | str]]:
    """Extents of inputs and outputs: numbers, or names of symbols."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return {
        info.name: [dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in _shape(info)]
        for info in (*model.graph.input, *model.graph.output)
        if info.name not in weights
    }


def _shape(info: onnx.ValueInfoProto) -> Iterable[onnx.TensorShapeProto.Dimension]:
    return info.type.tensor_type.shape.dim


def _other_shapes(model: onnx.ModelProto, subject: Subject) -> Iterator[dict[str, tuple[int, ...]]]:
    """The input with another batch size, then with other spatial extents, wherever these are symbolic."""
    ((name, usual),) = subject.shapes().items()
    (info,) = (info for info in model.graph.input if info.name == name)
    symbolic = [not dim.HasField("dim_value") for dim in _shape(info)]
    assert any(symbolic), "nothing is dynamic"
    if symbolic[0]:
        yield {name: (3, *usual[1:])}
    if any(symbolic[1:]):
        # Networks halve their input up to five times, so a multiple of 32 suits all.
        yield {
            name: tuple(
                extent + 32 * axis if open_ and axis else extent
                for axis, (extent, open_) in enumerate(zip(usual, symbolic, strict=True))
            )
        }
