"""Tasks: what outputs say, and how much of it is left: classes, boxes, masks, strings, embeddings, or plain values.

A task recognises outputs by their shapes and values, and compares what two models say. Write your own as a subclass of
:class:`Task`; packages list it in the entry-point group ``onnxprune.tasks``, plugin modules in ``TASKS``.
"""

from __future__ import annotations

from dataclasses import replace

from onnxprune.data.tasks.base import Answers, Judgement, Task, Verdict, verdict_of
from onnxprune.data.tasks.classes import ClassTask, LabelTask
from onnxprune.data.tasks.detection import DetectionTask
from onnxprune.data.tasks.embeddings import EmbeddingTask
from onnxprune.data.tasks.segmentation import SegmentationTask
from onnxprune.data.tasks.text import TextTask
from onnxprune.data.tasks.values import ValueTask
from onnxprune.errors import UsageError, unknown
from onnxprune.ops.registry import contributed

__all__ = [
    "AUTO",
    "Answers",
    "Judgement",
    "Task",
    "Verdict",
    "find_task",
    "judge",
    "known_tasks",
    "readers_of",
    "verdict_of",
]

AUTO = "auto"


def known_tasks() -> tuple[Task, ...]:
    """All tasks, in the order in which they are asked: those of plugins and packages first."""
    built_in = (DetectionTask(), TextTask(), SegmentationTask(), LabelTask(), ClassTask(), EmbeddingTask(), ValueTask())
    return (*contributed("tasks", lambda item: isinstance(item, Task)), *built_in)


def find_task(name: str) -> Task:
    """The task of that name. Raises UsageError for an unknown one."""
    for task in known_tasks():
        if task.name == name:
            return task
    raise UsageError(unknown("task", name, [*(task.name for task in known_tasks()), AUTO]))


def judge(before: Answers, after: Answers, task: str = AUTO) -> tuple[Judgement, ...]:
    """Compare what two models say.

    Args:
        before: the outputs of the original.
        after: those of the changed model, for the same samples.
        task: the name of one, which then takes every output whose shape it can read; or ``auto``.

    Raises:
        UsageError: the task is not known, or reads none of the outputs.
    """
    found = (one.compare(before.only(names), after.only(names)) for one, names in readers_of(before, task))
    return tuple(_doubting(one, before) if task == AUTO else one for one in found)


def readers_of(answers: Answers, task: str = AUTO) -> tuple[tuple[Task, tuple[str, ...]], ...]:
    """Which task reads which outputs.

    Plain values are compared only where no other task recognises an output: what a detector says of places where it
    sees nothing is not worth a verdict.

    Raises:
        UsageError: the task is not known, or reads none of the outputs.
    """
    if task != AUTO:
        asked = find_task(task)
        told = tuple((asked, names) for names in asked.recognise(answers, asked=True))
        if not told:
            shapes = ", ".join(f"'{name}' {answers.described(name)}" for name in answers.outputs)
            raise UsageError(f"task '{task}' reads none of the outputs ({shapes}); it takes {asked.takes}")
        return told
    found: list[tuple[Task, tuple[str, ...]]] = []
    for one in known_tasks():
        if isinstance(one, ValueTask) and found:
            break
        for names in one.recognise(answers, asked=False):
            found.append((one, names))
            answers = answers.without(names)
    return tuple(found)


def _doubting(found: Judgement, before: Answers) -> Judgement:
    """Rows of numbers may be the scores of a classifier that is not sure of these samples: the user has to say so."""
    if found.task not in (EmbeddingTask.name, ValueTask.name) or any(before.rank(name) != 1 for name in found.outputs):
        return found
    return replace(found, words=f"{found.words}; if these are scores of classes, say so: task {ClassTask.name}")
