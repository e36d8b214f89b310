"""Real processes and clusters, some of which die: all results arrive, none twice."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from onnxprune.data import Data
from onnxprune.errors import ClusterError, ResultsError
from onnxprune.exploration import Grid, Results, explore
from onnxprune.exploration.backends import Backend, Here, Lost, Processes
from onnxprune.exploration.clusters import Dask, Ray
from onnxprune.ir.model import Model
from onnxprune.pruning.plan import Plan
from tests.exploration.deadly import double, double_or_die
from tests.exploration.support import QUICK, tiny_data, tiny_model

_GRID = Grid(modes=["flops"], reduce=[0.2, 0.3, 0.4, 0.5, 0.6])


@dataclass(frozen=True)
class Deadly:
    """Notes every call in ``folder``; kills its process at a reduction of 0.4, once."""

    folder: str

    @property
    def name(self) -> str:
        return "deadly"

    def to_dict(self, seed: int) -> Mapping[str, Any]:
        return {}

    def __call__(self, pruned: Model, original: Model, plan: Plan, data: Data, seed: int) -> Model:
        reduce, died = plan.settings["reduce"], Path(self.folder) / "died"
        if reduce == 0.4 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        (Path(self.folder) / f"{reduce} by {os.getpid()} at {time.time_ns()}").touch()
        return pruned

    def calls(self, reduce: float) -> int:
        """How often the run with this reduction came through."""
        return len(list(Path(self.folder).glob(f"{reduce} by *")))


def explored(folder: Path, backend: Backend) -> tuple[Results, Deadly]:
    """An exploration with a deadly run."""
    (folder / "calls").mkdir(parents=True)
    step = Deadly(str(folder / "calls"))
    how = replace(QUICK, backend=backend)
    model, data = tiny_model(folder), tiny_data(folder)
    return explore(model, str(data), folder / "r.sqlite", replace(_GRID, steps=[step]), how=how), step


def everything_arrives(folder: Path, backend: Backend) -> None:
    """With a run that kills its process once."""
    results, step = explored(folder, backend)
    assert (Path(step.folder) / "died").exists()
    assert sorted(run.reduce for run in results.runs) == list(_GRID.reduce)
    assert [run.message for run in results.failed] == []
    assert step.calls(0.4) == 1
    plain = explore(folder / "model.onnx", str(folder / "data.npz"), folder / "plain.sqlite", _GRID, how=QUICK)
    assert {r.reduce: r.accuracy for r in results.runs} == {r.reduce: r.accuracy for r in plain.runs}


def the_rest_arrives(backend: Backend) -> None:
    """With a task that kills every process."""
    results = dict(backend.run(double_or_die, [1, 2, 3, 4, 5]))
    lost = results.pop(3)
    assert results == {1: 2, 2: 4, 4: 8, 5: 10}
    assert isinstance(lost, Lost)
    assert "died" in lost.reason


def test_processes_that_die(tmp_path: Path) -> None:
    everything_arrives(tmp_path, Processes(2))
    the_rest_arrives(Processes(2))


@dataclass(frozen=True)
class Losing:
    """A backend that loses everything."""

    def run(self, work: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        yield from ((task, Lost("the power is out")) for task in tasks)


def test_what_is_lost_is_recorded_as_failed(tmp_path: Path) -> None:
    results, _ = explored(tmp_path, Losing())
    assert [(run.status, run.message) for run in results.runs] == [("failed", "the power is out")] * 5
    assert [run.reduce for run in results.runs] == _GRID.reduce


def _fail(task: int) -> int:
    raise ResultsError(f"task {task}")


@pytest.mark.parametrize("backend", [Here(), Processes(2)])
def test_errors_of_the_work_end_it(backend: Backend) -> None:
    assert sorted(backend.run(double, [3, 1, 2])) == [(1, 2), (2, 4), (3, 6)]
    assert list(backend.run(double, [])) == []
    with pytest.raises(ResultsError, match="task"):
        list(backend.run(_fail, [3, 1, 2]))


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers, which inherit the path, find this module; last, so that the installed package goes first."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).parents[2])])


@pytest.fixture
def dask_cluster() -> Iterator[Callable[..., Any]]:
    distributed = pytest.importorskip("distributed")
    import dask

    opened: list[Any] = []

    def start(workers: int = 2, failures: int = 3) -> Any:
        with dask.config.set({"distributed.scheduler.allowed-failures": failures}):
            opened.append(
                distributed.LocalCluster(
                    n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
                )
            )
        return opened[-1]

    yield start
    for cluster in opened:
        cluster.close()


def test_dask_with_a_worker_that_dies(tmp_path: Path, dask_cluster: Callable[..., Any]) -> None:
    everything_arrives(tmp_path, Dask(dask_cluster().scheduler_address))


def test_dask_with_a_run_that_kills_every_worker(dask_cluster: Callable[..., Any]) -> None:
    the_rest_arrives(Dask(dask_cluster(failures=0).scheduler_address))


def test_dask_without_workers(dask_cluster: Callable[..., Any]) -> None:
    address = dask_cluster(workers=0).scheduler_address
    with pytest.raises(ClusterError, match="has no workers"):
        list(Dask(address, patience=0.5).run(double, [1]))


@pytest.fixture
def ray() -> Iterator[Any]:
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


@pytest.mark.slow  # A Ray cluster takes 20 s to start, and as long to see that a worker died.
def test_ray_with_workers_that_die(tmp_path: Path, ray: Any) -> None:
    everything_arrives(tmp_path, Ray())
    the_rest_arrives(Ray())


@pytest.fixture
def mute_address() -> Iterator[str]:
    """An address where connections are accepted and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_schedulers_that_do_not_answer(mute_address: str) -> None:
    pytest.importorskip("distributed")
    for address in (f"tcp://127.0.0.1:{_free_port()}", f"tcp://{mute_address}", "tcp://nobody.invalid:8786"):
        with pytest.raises(ClusterError, match="does not answer"):
            list(Dask(address, patience=1.0).run(double, [1]))
    for address in ("here", "tcp://127.0.0.1", "tcp://127.0.0.1:many"):
        with pytest.raises(ClusterError, match="is not the address of a scheduler"):
            list(Dask(address, patience=1.0).run(double, [1]))


@pytest.mark.slow  # Ray itself has to be installed, and takes seconds to import.
def test_ray_that_does_not_answer() -> None:
    pytest.importorskip("ray")
    with pytest.raises(ClusterError, match="does not answer"):
        list(Ray(f"127.0.0.1:{_free_port()}", patience=1.0).run(double, [1]))
