"""What a changed model loses, sample by sample, beside the original: in the words of the task, or by labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.data.bounds import Kind, Losses
from onnxprune.data.fidelity import answers_of
from onnxprune.data.samples import Samples
from onnxprune.data.tasks import AUTO, Answers, Task, readers_of
from onnxprune.data.tasks.classes import ClassTask, said_classes
from onnxprune.errors import DataError
from onnxprune.ir.model import Model

Readers = tuple[tuple[Task, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Reference:
    """What the original says about samples, and who reads it.

    Attributes:
        samples: as many as outputs fit into memory.
        before: what the original says.
        readers: the tasks, with the outputs that each reads.
        labels: the right classes [N], where they are known and one output says classes.
    """

    samples: Samples
    before: Answers
    readers: Readers
    labels: NDArray[Any] | None

    @property
    def kind(self) -> Kind:
        """What the loss of a sample is."""
        if self.labels is not None:
            return "paired"
        return "share" if all(task.whole for task, _ in self.readers) else "mean"

    @property
    def what(self) -> str:
        """What is lost, as a noun."""
        if self.labels is not None:
            return "accuracy lost"
        names = ", ".join(dict.fromkeys(task.name for task, _ in self.readers))
        return f"changed answers ({names})" if self.kind == "share" else f"loss of a sample ({names})"

    def losses(self, changed: Model) -> Losses:
        """What a changed model loses. Of several outputs each sample has the largest loss, so a bound holds for all.

        Raises:
            VerificationError: onnxruntime does not run it.
            DataError: it says something else about a number of samples.
        """
        after, count = answers_of(changed, self.samples, "the result")
        if count != len(self.samples) or any(name not in after.outputs for name in self.before.outputs):
            raise DataError("the outputs of the result cannot be compared with the original's, sample by sample")
        if self.labels is not None:
            ((_, names),) = self.readers
            was, is_ = (said_classes(answers.only(names)) == self.labels for answers in (self.before, after))
            return Losses(was.astype(np.float64) - is_, self.kind, self.what)
        each = [task.losses(self.before.only(names), after.only(names)) for task, names in self.readers]
        return Losses(np.max(each, axis=0), self.kind, self.what)


def reference(original: Model, samples: Samples, task: str = AUTO, *, like: Reference | None = None) -> Reference:
    """Run the original on samples.

    Args:
        original: the one that is right.
        samples: inputs, and labels if there are any.
        task: what the outputs say, or ``auto``, which looks at them.
        like: another reference, whose tasks are taken instead: what samples say must not decide how they are read.

    Raises:
        DataError: the samples are made up, nothing can be compared, or labels do not fit the outputs.
        UsageError: the task is not known, or reads none of the outputs.
        VerificationError: onnxruntime does not run the original.
    """
    if samples.made:
        raise DataError(f"synthetic samples ({samples.made}) prove nothing about real data: a promise takes real ones")
    before, count = answers_of(original, samples, "the original")
    samples, targets = samples.part(0, count), samples.targets
    labelled = targets is not None and targets.ndim == 1 and targets.dtype.kind in "iu"
    readers = like.readers if like is not None else readers_of(replace(before, labelled=labelled), task)
    if not readers:
        raise DataError("the outputs are none that can be compared sample by sample; name the task (--task NAME)")
    before = before.only([name for _, names in readers for name in names])
    labels = None
    if labelled and len(readers) == 1 and isinstance(readers[0][0], ClassTask):
        assert samples.targets is not None
        labels = _fitting(samples.targets, before.only(readers[0][1]))
    return Reference(samples, before, readers, labels)


def _fitting(labels: NDArray[Any], before: Answers) -> NDArray[Any]:
    """Labels that are the numbers of the output's classes. Raises DataError."""
    (scores,) = before.outputs.values()
    count = max(int(scores[0].shape[0]), 2)
    bad = labels[(labels < 0) | (labels >= count)]
    if len(bad):
        raise DataError(f"label {bad[0]} is outside of the model's {count} classes (0 to {count - 1})")
    right = float((said_classes(before) == labels).mean())
    if right <= 1 / count:
        raise DataError(
            f"the original is right on {right:.1%} of the labelled samples, no better than chance ({count} classes): "
            "the labels are not numbers of its classes; renumber them, or give samples without labels"
        )
    return labels
