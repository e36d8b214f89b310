"""Thresholds pass gradients where that is wanted, and values never change; a written model is compared beside them."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

import onnx
import torch

import onnxprune
from onnxprune.errors import OnnxPruneError, TrainingError, UsageError, VerificationError
from onnxprune.torch import Recipe, to_module, train
from onnxprune.torch.jumps import replayed
from onnxprune.torch.surrogates import derivative, give_surrogates, starved
from tests.spiking import STEPS, spiking
from tests.torch.training.support import data, weights


@pytest.mark.parametrize("kind", ["cast", "less", "where", "logic", "sign"])
def test_gradients_reach_all_weights_and_values_stay(kind: str) -> None:
    module, x = to_module(spiking(kind)), torch.rand(4, 1, 8, 8)
    before = module(x)
    missing = starved(module, (x,), 0)
    assert len(missing) == 4, "all but the read-out"
    with torch.no_grad():
        wanted = module(x)
    assert give_surrogates(module, "atan", 2.0)
    after = module(x)
    assert after.detach().numpy().tobytes() == before.detach().numpy().tobytes() == wanted.numpy().tobytes()
    after.square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("kind", "slope"), [("fast-sigmoid", 25.0), ("fast-sigmoid", 3.0), ("atan", 2.0)])
def test_the_derivative_is_that_of_the_smooth_step(kind, slope) -> None:
    at = torch.linspace(-2, 2, 401, dtype=torch.float64)

    def step(u):
        return u / (1 + slope * u.abs()) if kind == "fast-sigmoid" else torch.atan(np.pi / 2 * slope * u) / np.pi

    h = 1e-6
    by_hand = (step(at + h) - step(at - h)) / (2 * h)
    torch.testing.assert_close(derivative(at, kind, slope), by_hand, rtol=1e-4, atol=1e-6)
    assert derivative(torch.tensor([np.nan, np.inf, -np.inf]), kind, slope).tolist() == [0.0, 0.0, 0.0]


def test_the_gradient_of_a_threshold_is_computed_by_hand() -> None:
    model = onnxprune.load(
        _parsed(
            "g (float[n, 3] x) => (float[n, 3] y) <float[3] w = {0.4, 0.6, 2.0}, float limit = {0.5}> "
            "{ a = Mul(x, w)  b = Greater(a, limit)  y = Cast<to = 1>(b) }"
        )
    )
    module = to_module(model)
    give_surrogates(module, "fast-sigmoid", 10.0)
    x = torch.tensor([[1.0, 1.0, 1.0], [2.0, 0.5, -1.0]])
    y = module(x)
    assert y.tolist() == [[0, 1, 1], [1, 0, 0]]
    y.sum().backward()
    a = x * torch.tensor([0.4, 0.6, 2.0]) - 0.5
    (weight,) = module.parameters()
    torch.testing.assert_close(weight.grad, (x / (1 + 10 * a.abs()) ** 2).sum(0))


def _parsed(graph: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {graph}')


def test_what_has_a_gradient_keeps_it() -> None:
    graph = (
        "g (float[n, 3] x) => (float[n, 3] y) <float[3] w = {1.0, 2.0, 3.0}, float zero = {0.0}> "
        "{ a = Mul(x, w)  above = Greater(a, zero)  half = Mul(a, w)  y = Where(above, a, half) }"
    )
    module = to_module(_parsed(graph))
    assert not starved(module, (torch.ones(1, 3),), 0)
    assert give_surrogates(module, "atan") == 0


def test_without_a_surrogate_nothing_is_learnt_and_it_says_so() -> None:
    model, samples = spiking(), data(128)
    recipe = Recipe(epochs=3, lr=1e-2, batch_size=32)
    learnt = train(model, samples, recipe)
    idle = train(model, samples, Recipe(**{**recipe.to_dict(), "surrogate": "none", "weight_decay": 0.0}))
    assert learnt.surrogate is not None
    assert (learnt.surrogate.kind, learnt.surrogate.weights, learnt.surrogate.of) == ("fast-sigmoid", 4, 6)
    assert learnt.surrogate.thresholds == 2 * STEPS
    assert idle.surrogate is not None
    assert idle.surrogate.kind is None
    assert "learn nothing" in str(idle.surrogate)
    first = next(name for name, w in weights(model).items() if w.shape == (8, 1, 3, 3))
    assert weights(idle.model)[first].tobytes() == weights(model)[first].tobytes()
    assert weights(learnt.model)[first].tobytes() != weights(model)[first].tobytes()
    assert learnt.history[-1].train.loss < 0.7 * learnt.history[0].train.loss
    assert learnt.history[-1].train.loss < idle.history[-1].train.loss
    # One layer in all steps still: no weight has become several.
    assert weights(learnt.model).keys() == weights(model).keys()


def test_a_network_without_thresholds_is_left_alone() -> None:
    from tests.torch.training.support import classifier

    result = train(classifier(), data(64), Recipe(epochs=1, surrogate="atan"))
    assert result.surrogate is None
    with pytest.raises(UsageError, match="surrogate"):
        Recipe(surrogate="steep")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="slope"):
        Recipe(slope=0.0)


def test_a_surrogate_by_name_that_cannot_be_put_in_is_no_training_without_it() -> None:
    samples = data(32)
    samples.train.inputs["x"] = np.zeros((32, 1, 10, 10), np.float32)
    with pytest.raises(TrainingError, match=r"surrogate 'atan' cannot be put in: .* see that the samples fit"):
        train(spiking(), samples, Recipe(epochs=1, surrogate="atan"))
    # Where none was asked for, what does not fit is all that there is to say.
    with pytest.raises(OnnxPruneError) as caught:
        train(spiking(), samples, Recipe(epochs=1))
    assert "surrogate" not in str(caught.value)


def test_neurons_at_their_threshold_are_no_difference_and_wrong_ones_are() -> None:
    module = to_module(spiking())
    x = torch.rand(16, 1, 8, 8)
    made = {}

    class Keep(torch.fx.Interpreter):
        def run_node(self, n):
            result = super().run_node(n)
            if n.name in module.onnx_jumps:
                made[module.onnx_jumps[n.name]] = result.numpy(), self.fetch_args_kwargs_from_env(n)[0]
            return result

    with torch.no_grad():
        wanted = Keep(module).run(x)
    decided = {name: value for name, (value, _) in made.items()}
    assert len(decided) == 2 * STEPS
    (found,) = replayed(module, (x,), decided, 1e-3)
    assert torch.equal(found, wanted)
    # In the last step, the neuron nearest to its threshold, and the one farthest from it, decide otherwise.
    name, (value, (potential, limit)) = list(made.items())[-1]
    distance = (potential - limit).abs().flatten().numpy()
    scale = float(potential.abs().max())
    flipped = value.copy()
    flipped.flat[distance.argmin()] ^= True
    replayed(module, (x,), {**decided, name: flipped}, 2 * float(distance.min()) / scale + 1e-6)
    flipped = value.copy()
    flipped.flat[distance.argmax()] ^= True
    with pytest.raises(VerificationError, match="at 1 of"):
        replayed(module, (x,), {**decided, name: flipped}, 1e-3)


def test_a_mask_does_not_excuse_what_is_decided_beside_it() -> None:
    from types import SimpleNamespace

    from onnxprune.torch.jumps import _Replay

    first = torch.tensor([5.0, -5.0, 3.0, float("-inf"), -3.4e38])
    moved = _Replay._moved(SimpleNamespace(_tolerance=1e-3), [first, torch.tensor(-3.4e38)])
    assert all(float((at - first)[:3].abs().max()) < 1 for at, _ in moved)
    assert any(float((at - first)[:3].abs().max()) > 1e-3 for at, _ in moved)
