"""Runs on clusters: Dask and Ray, through their own clients.

Not through joblib: with its Dask backend (1.6) an exploration waits for ever once a run has killed its worker
several times, and Ray's gives nothing back before everything has ended.
"""

from __future__ import annotations

import asyncio
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, TypeVar
from urllib.parse import urlsplit

from onnxprune.errors import ClusterError, OnnxPruneError, UsageError, installing
from onnxprune.exploration.backends import Lost

T = TypeVar("T")
R = TypeVar("R")

_PATIENCE = 10.0
"""Seconds to wait for an answer."""
_LOOK = 1.0
"""Seconds between looks at the workers while none of them has anything to tell."""
_AHEAD = 2
"""Tasks per worker that are handed out, so that none has to wait for the next."""
_ALONE = threading.Lock()
"""Workers may have several threads; seeds of draws belong to the process."""


@dataclass(frozen=True)
class Dask:
    """A Dask cluster (``dask scheduler``), by the address of its scheduler, like ``tcp://10.0.0.1:8786``.

    ``patience`` is how many seconds the scheduler may take to answer, and there may be no worker.
    """

    scheduler: str
    patience: float = _PATIENCE

    def run(self, work: Callable[[T], R], tasks: Sequence[T]) -> Iterator[tuple[T, R | Lost]]:
        """Every task with its result, as they end.

        Raises:
            ClusterError: the scheduler does not answer, or there is no worker (left).
        """
        distributed = _needed("distributed", "dask")
        with self._client(distributed) as client:
            threads = self._wait_for_workers(client)
            waiting = list(reversed(tasks))
            pending: dict[Any, T] = {}
            # Dask blames every task that was on a worker for its death: those are made again, one at a time.
            suspects: list[T] = []
            alone = False
            silent_since = math.inf
            while waiting or pending or suspects:
                if not waiting and not pending:
                    alone = True
                    waiting.append(suspects.pop())
                while waiting and len(pending) < _AHEAD * threads:
                    task = waiting.pop()
                    pending[client.submit(partial(_alone, work), task, pure=False)] = task
                for future in self._ended(distributed, client, pending):
                    task, result = pending.pop(future), _dask_result(distributed, future)
                    if isinstance(result, Lost) and not alone:
                        suspects.append(task)
                    else:
                        yield task, result
                threads = sum(client.nthreads().values())
                silent_since = math.inf if threads else min(silent_since, time.monotonic())
                if time.monotonic() - silent_since > self.patience:
                    raise ClusterError(_no_workers(self.scheduler))

    @contextmanager
    def _client(self, distributed: Any) -> Iterator[Any]:
        _reach(self.scheduler, self.patience)
        try:
            self._greet(distributed)
            client = distributed.Client(self.scheduler, timeout=self.patience, set_as_default=False)
        except (OSError, ValueError, asyncio.TimeoutError) as error:
            raise ClusterError(_silent(self.scheduler, error)) from error
        try:
            with client.as_current():
                yield client
        except (OSError, distributed.client.FutureCancelledError) as error:
            raise ClusterError(f"the connection to {self.scheduler} broke: {error}; {_GO_ON}") from error
        finally:
            client.close(timeout=2)

    def _greet(self, distributed: Any) -> None:
        """Ask who it is: a client would wait for ever for one that takes calls and says nothing."""

        async def ask() -> None:
            async with distributed.core.rpc(self.scheduler) as scheduler:
                await asyncio.wait_for(scheduler.identity(), self.patience)

        # In a thread of its own, since notebooks have an event loop running in this one.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, ask()).result()

    def _wait_for_workers(self, client: Any) -> int:
        try:
            client.wait_for_workers(1, timeout=self.patience)
        except (OSError, TimeoutError) as error:
            raise ClusterError(_no_workers(self.scheduler)) from error
        return max(1, sum(int(count) for count in client.nthreads().values()))

    def _ended(self, distributed: Any, client: Any, pending: dict[Any, T]) -> list[Any]:
        try:
            done = distributed.wait(list(pending), timeout=_LOOK, return_when="FIRST_COMPLETED").done
        except TimeoutError:
            done = set()
        if client.status not in ("running", "newly-created"):
            raise ClusterError(f"the scheduler {self.scheduler} is gone; {_GO_ON}")
        return list(done)


@dataclass(frozen=True)
class Ray:
    """A Ray cluster, by its address (``10.0.0.1:6379``, ``ray://…``, or ``auto`` for the one that this machine is in).

    Without an address it is one on this machine that ends with the exploration (or the one that this process is
    connected to).
    """

    scheduler: str | None = None
    patience: float = _PATIENCE

    def run(self, work: Callable[[T], R], tasks: Sequence[T]) -> Iterator[tuple[T, R | Lost]]:
        """Every task with its result, as they end.

        Raises:
            ClusterError: the cluster does not answer, or has no processors for the work.
        """
        ray = _needed("ray", "ray")
        with self._connected(ray):

            def run_one(task: T) -> R:
                return _alone(work, task)

            remote = ray.remote(num_cpus=1, max_retries=3)(run_one)
            waiting = list(reversed(tasks))
            pending: dict[Any, T] = {}
            silent_since = math.inf
            while waiting or pending:
                processors = int(ray.cluster_resources().get("CPU", 0))
                silent_since = math.inf if processors else min(silent_since, time.monotonic())
                if time.monotonic() - silent_since > self.patience:
                    raise ClusterError(_no_workers(self.scheduler or "the Ray cluster"))
                while waiting and len(pending) < _AHEAD * max(processors, 1):
                    task = waiting.pop()
                    pending[remote.remote(task)] = task
                for reference in ray.wait(list(pending), num_returns=1, timeout=_LOOK)[0]:
                    yield pending.pop(reference), _ray_result(ray, reference)

    @contextmanager
    def _connected(self, ray: Any) -> Iterator[None]:
        if ray.is_initialized():
            yield
            return
        if self.scheduler is not None and self.scheduler != "auto":
            # Ray itself retries for a minute, and then ends the process.
            _reach(self.scheduler, self.patience)
        try:
            if self.scheduler is None:
                ray.init(address="local", log_to_driver=False, logging_level="ERROR", include_dashboard=False)
            else:
                ray.init(address=self.scheduler, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            raise ClusterError(_silent(self.scheduler or "the Ray cluster", error)) from error
        try:
            yield
        except ray.exceptions.RaySystemError as error:
            raise ClusterError(f"the connection to {self.scheduler or 'Ray'} broke: {error}; {_GO_ON}") from error
        finally:
            ray.shutdown()


_GO_ON = "what was recorded is safe: give the same command again to go on"


def _alone(work: Callable[[T], R], task: T) -> R:
    with _ALONE:
        return work(task)


def _dask_result(distributed: Any, future: Any) -> Any:
    if future.status == "cancelled":
        raise ClusterError(f"a run was cancelled by the scheduler; {_GO_ON}")
    if future.status != "error":
        return future.result()
    error = future.exception()
    if isinstance(error, distributed.scheduler.KilledWorker):
        return Lost(_DEADLY)
    raise _foreign(error)


def _ray_result(ray: Any, reference: Any) -> Any:
    lost = (
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.OutOfMemoryError,
        ray.exceptions.NodeDiedError,
        ray.exceptions.LocalRayletDiedError,
    )
    try:
        return ray.get(reference)
    except lost:
        return Lost(_DEADLY)
    except ray.exceptions.RayTaskError as error:
        raise _foreign(error.cause) from error


_DEADLY = "every worker that made this run died, for lack of memory perhaps"


def _foreign(error: BaseException) -> BaseException:
    """What a worker raised, as it is if it is one of ours."""
    if isinstance(error, OnnxPruneError):
        return error
    return ClusterError(
        f"the workers cannot do this: {type(error).__name__}: {error}; they need the same onnxprune and Python"
    )


def _needed(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise UsageError(f"this backend takes {module}; {installing(extra)}") from error


def _reach(address: str, patience: float) -> None:
    """See whether anybody listens. Raises ClusterError."""
    parts = urlsplit(address if "//" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ClusterError(f"'{address}' is not the address of a scheduler: {error}") from error
    if parts.scheme not in ("", "tcp", "tls", "ray"):
        return
    if host is None or port is None:
        raise ClusterError(f"'{address}' is not the address of a scheduler; write it like tcp://10.0.0.1:8786")
    try:
        socket.create_connection((host, port), timeout=patience).close()
    except OSError as error:
        raise ClusterError(_silent(address, error)) from error


def _silent(address: str, error: BaseException) -> str:
    why = str(error).strip().splitlines()
    return f"{address} does not answer ({why[0] if why else type(error).__name__}); see that it runs and is reachable"


def _no_workers(address: str) -> str:
    return f"{address} has no workers; start some. What was recorded is safe: give the same command again to go on"
