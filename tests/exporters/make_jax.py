"""Writes the JAX models of this folder: ``pip install jax flax jax2onnx && python tests/exporters/make_jax.py``."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import onnx
from flax import nnx
from jax2onnx import to_onnx


class Block(nnx.Module):
    """A residual block with BatchNorm and a depthwise convolution."""

    def __init__(self, channels: int, rngs: nnx.Rngs) -> None:
        self.first = nnx.Conv(channels, channels, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(channels, rngs=rngs, use_running_average=True)
        self.depthwise = nnx.Conv(channels, channels, (3, 3), feature_group_count=channels, rngs=rngs)
        self.second = nnx.Conv(channels, channels, (3, 3), rngs=rngs)

    def __call__(self, x: jnp.ndarray) -> jnp.ndarray:
        h = self.depthwise(nnx.relu(self.norm(self.first(x))))
        return nnx.relu(x + self.second(nnx.gelu(h)))


class Network(nnx.Module):
    """A small residual network in NHWC."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(3, 16, (3, 3), strides=2, rngs=rngs)
        self.blocks = nnx.List([Block(16, rngs) for _ in range(2)])
        self.down = nnx.Conv(16, 32, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.LayerNorm(32, rngs=rngs)
        self.head = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x: jnp.ndarray) -> jnp.ndarray:
        x = nnx.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(jnp.mean(nnx.relu(self.down(x)), axis=(1, 2))))


class Attention(nnx.Module):
    """One transformer layer between two linear ones."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Linear(24, 32, rngs=rngs)
        self.attend = nnx.MultiHeadAttention(num_heads=4, in_features=32, decode=False, rngs=rngs)
        self.norm = nnx.LayerNorm(32, rngs=rngs)
        self.wide = nnx.Linear(32, 64, rngs=rngs)
        self.narrow = nnx.Linear(64, 32, rngs=rngs)
        self.head = nnx.Linear(32, 5, rngs=rngs)

    def __call__(self, x: jnp.ndarray) -> jnp.ndarray:
        x = self.embed(x)
        x = x + self.attend(self.norm(x))
        x = x + self.narrow(nnx.gelu(self.wide(x)))
        return self.head(x)


if __name__ == "__main__":
    folder = Path(__file__).parent
    for name, network, shape in (
        ("jax_cnn", Network(nnx.Rngs(0)), ("B", 32, 32, 3)),
        ("jax_attention", Attention(nnx.Rngs(0)), (2, 9, 24)),
    ):
        onnx.save(to_onnx(network, [shape], model_name=name), folder / f"{name}.onnx")
