"""Where runs are made: processes of this machine, or a cluster. One protocol, so that nothing else has to know."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Lost:
    """What became of a task whose process died, more than once: nothing."""

    reason: str


class Backend(Protocol):
    """Makes tasks, in any order."""

    def run(self, work: Callable[[T], R], tasks: Sequence[T]) -> Iterator[tuple[T, R | Lost]]:
        """Every task once, with its result, as they end.

        A task whose process dies is made again elsewhere; one that dies with every process is lost. Errors that
        ``work`` raises end it all.
        """


@dataclass(frozen=True)
class Here:
    """One after the other in this very process."""

    def run(self, work: Callable[[T], R], tasks: Sequence[T]) -> Iterator[tuple[T, R | Lost]]:
        """Every task with its result."""
        for task in tasks:
            yield task, work(task)


@dataclass(frozen=True)
class Processes:
    """Processes of this machine, through joblib.

    ``jobs`` is their number; ``threads`` what each may use for itself.
    """

    jobs: int
    threads: int = 1

    def run(self, work: Callable[[T], R], tasks: Sequence[T]) -> Iterator[tuple[T, R | Lost]]:
        """Every task with its result, as they end."""
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        left = dict(enumerate(tasks))
        while left:
            before = len(left)
            try:
                for at, result in self._together(work, left):
                    yield left.pop(at), result
            except TerminatedWorkerError:
                # Which of the tasks in work was it? After a second death without any result between, each by itself.
                if len(left) == before:
                    yield from self._one_by_one(work, left)

    def _together(self, work: Callable[[T], R], left: dict[int, T]) -> Iterator[tuple[int, R]]:
        import joblib

        with joblib.parallel_config(backend="loky", inner_max_num_threads=self.threads):
            # A single task would be made in this process; two workers keep it out of it.
            parallel = joblib.Parallel(
                n_jobs=max(self.jobs, 2), return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs"
            )
            yield from parallel(joblib.delayed(_numbered)(work, at, task) for at, task in tuple(left.items()))

    def _one_by_one(self, work: Callable[[T], R], left: dict[int, T]) -> Iterator[tuple[T, R | Lost]]:
        """Until the task is found that its process dies of; the others can then go on together."""
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        for at, task in tuple(left.items()):
            try:
                ((_, result),) = self._together(work, {at: task})
                del left[at]
                yield task, result
            except TerminatedWorkerError:
                del left[at]
                yield task, Lost("the process that made this run died, for lack of memory perhaps")
                return


def _numbered(work: Callable[[T], R], at: int, task: T) -> tuple[int, R]:
    return at, work(task)
