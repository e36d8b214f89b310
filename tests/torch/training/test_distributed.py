"""Two processes under torchrun train what one does."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from onnxprune.errors import TrainingError, UsageError
from onnxprune.torch import Recipe, train
from onnxprune.torch.training.distributed import Processes, processes

from .support import classifier, data, weights

ROOT = Path(__file__).parents[3]
RECIPE = Recipe(epochs=2, lr=1e-2, batch_size=32, optimizer="sgd", clip=1.0)

_WORKER = """
import os, sys
import numpy as np
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from tests.torch.training.support import classifier, data, weights
from tests.torch.training.test_distributed import RECIPE
from onnxprune.torch import train
folder = Path(sys.argv[1])
result = train(classifier(norm=True), data(96), RECIPE, checkpoint=folder / "state")
losses = [epoch.train.loss for epoch in result.history]
tests = [epoch.test.loss for epoch in result.history]
accuracies = [epoch.test.accuracy for epoch in result.history]
np.savez(
    folder / f"{os.environ['RANK']}.npz", losses=losses, tests=tests, accuracies=accuracies, **weights(result.model)
)
"""


def torchrun(*words: str) -> subprocess.CompletedProcess[str]:
    """A command in two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False, env=environment)


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(_WORKER)
    result = torchrun(str(script), str(tmp_path), str(ROOT))
    assert result.returncode == 0, result.stderr[-2000:]
    first, second = (dict(np.load(tmp_path / f"{rank}.npz")) for rank in (0, 1))
    assert first.keys() == second.keys()
    for name, values in first.items():
        assert values.tobytes() == second[name].tobytes(), name
    alone = train(classifier(norm=True), data(96), RECIPE)
    np.testing.assert_allclose(first["losses"], [epoch.train.loss for epoch in alone.history], rtol=1e-4)
    tests = [epoch.test for epoch in alone.history if epoch.test is not None]
    np.testing.assert_allclose(first["tests"], [test.loss for test in tests], rtol=1e-4)
    assert first["accuracies"].tolist() == [test.accuracy for test in tests]
    for name, values in weights(alone.model).items():
        np.testing.assert_allclose(first[name], values, rtol=1e-3, atol=1e-4, err_msg=name)
    assert not list(tmp_path.glob("*.tmp"))


def test_batches_have_to_divide() -> None:
    two = Processes(0, 2, torch.device("cpu"))
    assert two.share(8) == 4
    with pytest.raises(TrainingError, match="a batch of 7 does not divide among 2 processes"):
        two.share(7)


def test_devices_that_are_not_there() -> None:
    with pytest.raises(UsageError, match="device 'nonsense' cannot be used"), processes("nonsense"):
        pass
    with pytest.raises(UsageError, match="cannot be used"):
        train(classifier(), data(64), replace(RECIPE, epochs=1), device="cuda:99")
