"""Pictures made of nothing, with the statistics that pictures of the world have.

Their spectra fall with the frequency, things lie before other things, and light changes slowly. None of them shows
anything, but edges, textures and smooth areas are in them as layers know them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]

#: The slopes of spectra, and what a channel shares with the others.
_SLOPES, _SHARED = (0.8, 1.8), 0.8
#: Things of one picture, and their smallest and largest radius as a share of the side.
_THINGS, _RADII = 80, (0.03, 0.5)


def scene(size: tuple[int, int], channels: int, rng: np.random.Generator) -> Image:
    """One picture [channels, height, width] from 0 to 1: noise, things before things, or light that changes slowly."""
    kinds: tuple[Callable[[tuple[int, int], int, np.random.Generator], Image], ...] = (_noise, _leaves, _light)
    image = kinds[int(rng.integers(len(kinds)))](size, channels, rng)
    low, high = np.quantile(image, (0.01, 0.99))
    dark, span = rng.uniform(0, 0.3), rng.uniform(0.5, 1.0)
    scaled = (image - low) / max(float(high - low), 1e-6) * span + dark * (1 - span)
    return np.asarray(np.clip(scaled, 0.0, 1.0), dtype=np.float32)


def _noise(size: tuple[int, int], channels: int, rng: np.random.Generator) -> Image:
    """Noise whose amplitudes fall with the frequency; channels have much in common, as colours do."""
    height, width = size
    down, across = np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width)[None] * width
    frequency = np.maximum(np.hypot(down, across), 1.0)
    white = rng.standard_normal((channels + 1, height, width)).astype(np.float32)
    falling = np.fft.rfft2(white) / frequency ** rng.uniform(*_SLOPES)
    layers = np.fft.irfft2(falling, s=size)
    layers /= np.maximum(layers.std(axis=(1, 2), keepdims=True), 1e-9)
    shared = _SHARED * layers[:1] + (1 - _SHARED) * layers[1:]
    return np.asarray(shared + rng.uniform(-0.5, 0.5, (channels, 1, 1)), dtype=np.float32)


def _leaves(size: tuple[int, int], channels: int, rng: np.random.Generator) -> Image:
    """Discs and boxes of all sizes that hide one another, each with a colour and a texture of its own."""
    height, width = size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    image = _noise(size, channels, rng)
    texture = _noise(size, channels, rng)
    smallest, largest = (radius * min(size) for radius in _RADII)
    for _ in range(_THINGS):
        # Areas of things fall with the third power of their size.
        radius = smallest / np.sqrt(1 - rng.random() * (1 - (smallest / largest) ** 2))
        angle, flat = rng.uniform(0, np.pi), rng.uniform(0.4, 1.0)
        dy, dx = y - rng.uniform(0, height), x - rng.uniform(0, width)
        along, across = dx * np.cos(angle) + dy * np.sin(angle), (dy * np.cos(angle) - dx * np.sin(angle)) / flat
        box = rng.random() < 0.4
        inside = (np.maximum(abs(along), abs(across)) if box else np.hypot(along, across)) < radius
        colour = rng.uniform(-2, 2, (channels, 1)) * 0.5 + rng.uniform(-2, 2)
        shade = rng.uniform(0, 0.6) * texture[:, inside] + rng.uniform(-1, 1) * along[inside] / max(radius, 1.0) * 0.4
        image[:, inside] = colour + shade
    return image


def _light(size: tuple[int, int], channels: int, rng: np.random.Generator) -> Image:
    """Slow changes in a few directions and around a few places, with a little noise."""
    height, width = size
    y, x = np.mgrid[:height, :width].astype(np.float32) / max(height, width)
    image = np.zeros((channels, height, width), dtype=np.float32)
    for _ in range(4):
        colour = rng.standard_normal((channels, 1, 1)).astype(np.float32) + np.float32(rng.standard_normal())
        angle, centre = rng.uniform(0, 2 * np.pi), rng.uniform(0, 1, 2)
        if rng.random() < 0.5:
            slope = np.tanh((x - centre[0]) * np.cos(angle) * 3 + (y - centre[1]) * np.sin(angle) * 3)
        else:
            slope = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / rng.uniform(0.01, 0.3))
        image += colour * slope
    return image + rng.uniform(0, 0.3) * _noise(size, channels, rng)
