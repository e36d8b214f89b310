"""What is left of answers: every task, recognised from outputs and measured on outputs that are damaged on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import onnxprune
from onnxprune.data.fidelity import measure_fidelity
from onnxprune.data.samples import collect
from onnxprune.data.tasks import Answers, Judgement, Task, Verdict, judge, known_tasks, verdict_of
from onnxprune.data.tasks.boxes import overlaps, suppressed
from onnxprune.data.tasks.text import edit_distance
from onnxprune.errors import AnswersError, UsageError
from onnxprune.ir.model import Model, as_model
from tests.cli.support import MODELS, done, run

Array = NDArray[Any]
RNG = np.random.default_rng


def answers(
    endings: dict[str, str | None] | None = None, labelled: bool = False, **outputs: Sequence[Array]
) -> Answers:
    return Answers({name: list(values) for name, values in outputs.items()}, endings or {}, labelled)


def sole(before: Answers, after: Answers, task: str = "auto") -> Judgement:
    (found,) = judge(before, after, task)
    return found


@pytest.mark.parametrize(
    ("share", "verdict"),
    [(1.0, "kept"), (0.9, "kept"), (0.8999, "damaged"), (0.5, "damaged"), (0.4999, "ruined"), (float("nan"), "ruined")],
)
def test_verdicts_change_where_the_documentation_says(share: float, verdict: Verdict) -> None:
    assert verdict_of(share) == verdict


def logits(seed: int = 0, count: int = 200, classes: int = 10) -> Array:
    scores = RNG(seed).standard_normal((count, classes))
    scores[np.arange(count), np.arange(count) % classes] += 6
    return scores


def test_classes_that_change_are_counted() -> None:
    old = logits()
    new = old.copy()
    new[:30] = np.roll(old[:30], 1, axis=1)
    found = sole(answers(y=old), answers(y=new))
    assert (found.task, found.share, found.verdict) == ("classes", 0.85, "damaged")
    assert 0.8 < found.figures["sure_agreement"] < 0.9
    assert "85.0 %" in found.words


def test_always_the_same_class_keeps_nothing() -> None:
    old = np.zeros((100, 2))
    old[:95, 0] = old[95:, 1] = 9
    found = sole(answers(y=old), answers(y=np.tile([9.0, 0.0], (100, 1))))
    assert found.share == 0.95
    assert found.verdict == "damaged"
    assert found.figures["balanced_agreement"] == 0.5


def test_regressions_and_embeddings_are_no_classes() -> None:
    rng = RNG(0)
    boxes, wide = rng.standard_normal((50, 4)) * 0.1, rng.standard_normal((50, 64))
    unit = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    assert sole(answers(y=boxes), answers(y=boxes)).task == "values"
    assert sole(answers(y=boxes), answers(y=boxes)).words.endswith(
        "if these are scores of classes, say so: task classes"
    )
    assert sole(answers(y=boxes), answers(y=boxes), "classes").task == "classes"
    assert sole(answers(y=unit), answers(y=unit)).task == "embeddings"
    assert sole(answers({"y": "Softmax"}, y=np.full((9, 4), 0.25)), answers(y=np.eye(4)[[0] * 9])).task == "classes"


def test_labels_behind_a_sigmoid_are_a_set() -> None:
    old = np.array([[0.9, 0.8, 0.1], [0.1, 0.1, 0.7]])
    new = np.array([[0.9, 0.2, 0.1], [0.1, 0.1, 0.7]])
    found = sole(answers({"y": "Sigmoid"}, y=old), answers({"y": "Sigmoid"}, y=new))
    assert (found.task, found.figures["same_sets"]) == ("labels", 0.5)
    assert found.share == pytest.approx(0.8)


def test_neighbours_of_embeddings_are_ranked() -> None:
    old = RNG(0).standard_normal((60, 32))
    found = sole(answers(y=old), answers(y=old + 0.05 * RNG(1).standard_normal(old.shape)))
    assert (found.task, found.verdict) == ("embeddings", "kept")
    assert found.figures["nearest"] > 0.8
    lost = sole(answers(y=old), answers(y=RNG(2).standard_normal(old.shape)))
    assert lost.verdict == "ruined"
    assert lost.figures["rank"] > 10
    # An untrained head says nothing, and loses nothing; what says something then has lost it all.
    assert sole(answers(y=0 * old), answers(y=0 * old)).share == 1
    assert sole(answers(y=0 * old), answers(y=old)).share == 0


def scene(count: int = 3, classes: int = 4, places: int = 64) -> tuple[Array, Array]:
    """Boxes as centre and size [A, 4] in pixels, scores [A, C]; ``count`` of them are sure."""
    rng = RNG(5)
    boxes = np.concatenate([rng.uniform(40, 600, (places, 2)), rng.uniform(20, 40, (places, 2))], axis=1)
    boxes[:count, 0] = 50 + 150 * np.arange(count)
    scores = rng.uniform(0, 0.05, (places, classes))
    scores[np.arange(count), np.arange(count) % classes] = 0.9
    return boxes, scores


@pytest.mark.parametrize("form", ["turned", "rows", "gated", "apart", "corners"])
def test_detections_are_matched_in_every_layout(form: str) -> None:
    boxes, scores = scene()
    missed = scores.copy()
    missed[0] = 0.01  # one of three is not seen any more

    def outputs(scores: Array) -> Answers:
        if form == "turned":
            return answers(y=[np.concatenate([boxes, scores], axis=1).T])
        if form == "rows":
            return answers(y=[np.concatenate([boxes, scores], axis=1)])
        if form == "gated":
            gate = np.where(scores.max(axis=1, keepdims=True) > 0.5, 0.95, 0.001)
            sure = np.clip(scores + 0.4 * (np.arange(4) == 1), 0, 1)
            return answers(y=[np.concatenate([boxes, gate, sure], axis=1)])
        corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
        return answers(b=[boxes if form == "apart" else corners], s=[scores])

    same = sole(outputs(scores), outputs(scores))
    assert (same.task, same.share, same.figures["boxes"]) == ("detection", 1.0, 3.0)
    found = sole(outputs(scores), outputs(missed))
    assert (found.figures["matched"], found.figures["boxes_after"]) == (2.0, 2.0)
    assert found.share == pytest.approx(0.8)
    assert "2 of the original's 3 boxes" in found.words


def test_a_detector_that_lost_its_scores_is_ruined_however_alike_its_boxes_are() -> None:
    boxes, scores = scene(count=20)
    old, new = (np.concatenate([boxes, s], axis=1).T for s in (scores, scores * 0.2))
    cosine = (old * new).sum() / np.linalg.norm(old) / np.linalg.norm(new)
    assert cosine > 0.999  # what was reported before
    assert sole(answers(y=[old]), answers(y=[new])).verdict == "ruined"


def test_boxes_of_any_number_stand_for_one_sample() -> None:
    corners = np.array([[0.0, 0, 10, 10], [20, 20, 40, 40]])
    before = answers(b=[corners], s=[np.array([0.9, 0.8])], c=[np.array([1, 2])])
    after = answers(b=[corners[:1]], s=[np.array([0.9])], c=[np.array([1])])
    found = sole(before, after)
    assert found.task == "detection"
    assert found.share == pytest.approx(2 / 3)
    nothing = answers(b=[np.zeros((0, 4))], s=[np.zeros(0)], c=[np.zeros(0, int)])
    assert sole(before, nothing).verdict == "ruined"
    assert sole(before, answers(b=[corners], s=[np.array([0.9, 0.8])], c=[np.array([1, 3])])).share == 0.5


def test_overlap_and_suppression() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 5], [1, 0, 10, 10]])
    assert overlaps(boxes, boxes)[0] == pytest.approx([1.0, 0.5, 0.9])
    scores = np.array([0.9, 0.8, 0.95])
    assert suppressed(boxes, scores, np.zeros(3, np.int64), 0.7).tolist() == [2, 1]
    assert suppressed(boxes, scores, np.arange(3), 0.7).tolist() == [2, 0, 1]


@pytest.mark.parametrize("last", [False, True])
def test_maps_of_classes_and_masks(last: bool) -> None:
    def maps(classes: Array) -> list[Array]:
        scores = 9.0 * np.eye(3)[classes]
        return list(scores if last else np.moveaxis(scores, -1, 1))

    old = np.zeros((2, 16, 16), int)
    old[:, 4:8, 4:8], old[:, 8:12] = 1, 2
    new = old.copy()
    new[old == 1] = 0
    found = sole(answers(y=maps(old)), answers(y=maps(new)))
    assert (found.task, found.verdict) == ("segmentation", "damaged")
    assert 0.6 < found.share < 0.67  # one of three classes is gone
    mask = [(sample[..., None] if last else sample[None]) for sample in (old > 0).astype(float)]
    lost = [(sample[..., None] if last else sample[None]) for sample in (old == 1).astype(float)]
    halved = sole(answers({"y": "Sigmoid"}, y=mask), answers({"y": "Sigmoid"}, y=lost))
    assert halved.share == pytest.approx(16 / 80)
    assert halved.figures["regions_f1"] == 0.0
    assert halved.verdict == "ruined"


def steps(text: Sequence[int], classes: int = 12) -> Array:
    return np.asarray(0.9 * np.eye(classes)[list(text)] + 0.1 / classes)


def test_strings_are_compared_without_blanks_and_repetitions() -> None:
    old = [steps([0, 3, 3, 0, 3, 5, 0]), steps([0, 0, 7, 0, 0, 0, 0])]
    again = [steps([3, 0, 0, 3, 5, 5, 0]), steps([0, 0, 0, 0, 0, 0, 8])]
    found = sole(answers(y=old), answers(y=again))
    assert (found.task, found.share) == ("text", 0.5)
    assert found.figures["characters"] == 0.75
    assert edit_distance((1, 2, 3), (2, 3, 4)) == 2
    blank_last = [steps([11, 2, 11, 11]), steps([11, 11, 4, 11])]
    assert sole(answers(y=blank_last), answers(y=blank_last)).share == 1


def test_a_task_that_cannot_read_the_outputs_says_what_it_takes() -> None:
    given = answers(y=RNG(0).standard_normal((5, 4)))
    with pytest.raises(UsageError, match=r"task 'text' reads none of the outputs \('y' N×4\); it takes \[N, T, C\]"):
        judge(given, given, "text")
    with pytest.raises(UsageError, match="task 'poetry' is not known; choose one of detection, text, "):
        judge(given, given, "poetry")


PLUGIN = '''
from onnxprune.data.tasks import Judgement, Task, verdict_of

class Sign(Task):
    """Whether the sum of the scores keeps its sign."""
    name = "sign"
    def recognise(self, answers, *, asked):
        return [(name,) for name in answers.outputs]
    def compare(self, before, after):
        (name,) = before.outputs
        return Judgement(self.name, (name,), 0.25, verdict_of(0.25), "a quarter of the signs")

TASKS = (Sign(),)
'''


def test_a_task_of_ones_own_comes_first(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    common = ("prune", MODELS / "vgg_torchscript.onnx", "--channels", 0.1, "--calibrate", MODELS / "fashion_sample.npz")
    common += ("--calibration-samples", 16, "--compensate", "none")
    text = done(*common, "--plugin", tmp_path / "mine.py", "-o", tmp_path / "a.onnx")
    assert "Answers RUINED (sign): a quarter of the signs." in text
    assert "Next: " in text
    assert all(isinstance(task, Task) and task.name != "sign" for task in known_tasks())


def test_the_command_line_ends_with_what_is_left_or_what_to_do(tmp_path: Path) -> None:
    model, out = MODELS / "vgg_torchscript.onnx", tmp_path / "a.onnx"
    text = done("prune", model, "--channels", 0.1, "-o", out)
    assert "Answers unknown; next: --calibrate FOLDER" in text
    out.unlink()
    common = ("prune", model, "-o", out, "--channels", 0.6, "--compensate", "none")
    refused = run(*common, "--min-agreement", 0.9, "--calibrate", MODELS / "fashion_sample.npz")
    assert refused.exit_code == 1
    assert "less than 0.9 of the original's answers is left" in refused.stderr
    assert not out.exists()
    assert run(*common, "--min-agreement", 0.9).exit_code == 2
    unknown = run(*common, "--task", "poetry", "--calibrate", MODELS / "fashion_sample.npz")
    assert (unknown.exit_code, "task 'poetry' is not known" in unknown.stderr) == (2, True)


def test_compress_refits_and_judges_as_the_command_line_does(tmp_path: Path) -> None:
    model = MODELS / "vgg_torchscript.onnx"
    with np.load(MODELS / "fashion_sample.npz") as sample:
        images = sample["images"].astype(np.float32).reshape(-1, 1, 28, 28) / 255
    made = onnxprune.compress(model, reduce=0.5, calibration={"image": images[:160]}, calibration_samples=96)
    assert made.compensation is not None
    assert made.compensation.method == "refit"
    assert made.fidelity is not None
    assert made.fidelity.samples == 64
    plain = onnxprune.compress(model, reduce=0.5, calibration={"image": images[:160]}, compensate="none")
    assert plain.compensation is None
    assert plain.fidelity is not None
    assert (made.fidelity.share or 0) > (plain.fidelity.share or 1)
    with pytest.raises(AnswersError, match="train the result"):
        onnxprune.compress(
            model, reduce=0.5, calibration={"image": images[:160]}, compensate="none", min_agreement=0.95
        )


def test_rows_are_listed_from_the_worst() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N, 3, 8] x) => (float[N, 3, 8] y) { y = Mul(x, factors) }'
    )

    def with_factors(*values: float) -> Model:
        made = onnx.ModelProto()
        made.CopyFrom(model)
        made.graph.initializer.append(onnx.numpy_helper.from_array(np.array([values], np.float32).T, "factors"))
        return as_model(made)

    first = with_factors(100, 1, 1)
    samples = collect({"x": RNG(0).standard_normal((8, 3, 8)).astype(np.float32)}, first)
    (output,) = measure_fidelity(first, with_factors(100, 1, -1), samples).outputs
    assert output.cosine > 0.999
    assert output.rows == 3
    assert [(row.index, round(row.cosine, 3)) for row in output.worst] == [(2, -1.0), (0, 1.0), (1, 1.0)]
