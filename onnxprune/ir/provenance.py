"""What happened to a model, written into its file: one metadata property, a JSON list of steps.

The same steps give the same bytes: no times, no paths of the machine, no measured figures but rounded ones.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from onnxprune.ir.model import Model
from onnxprune.ir.storage import contents
from onnxprune.ir.weights import Weight
from onnxprune.ir.wire import Buffer

KEY = "onnxprune"
"""The name of the metadata property."""
_FORMAT = "onnxprune-provenance"
_VERSION = 1
_EACH = "each:"
"""What a digest over the digests of weights begins with; the first files have one over all bytes, without it."""
_PACKAGES = ("onnxprune", "onnx", "onnxruntime", "numpy")


def steps_of(model: Model) -> tuple[Mapping[str, Any], ...]:
    """The steps that the file tells of, oldest first; none where it tells nothing, or nothing that can be read."""
    text = next((entry.value for entry in model.skeleton.metadata_props if entry.key == KEY), "")
    try:
        data = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return ()
    if not isinstance(data, dict) or data.get("format") != _FORMAT or data.get("version") != _VERSION:
        return ()
    steps = data.get("steps")
    return tuple(step for step in steps if isinstance(step, dict)) if isinstance(steps, list) else ()


def with_step(model: Model, kind: str, told: Mapping[str, Any], *, instead: str | None = None) -> Model:
    """The model with one more step: its kind, what is told of it, the versions that did it, and what weights it left.

    Args:
        model: what the step made.
        kind: the step: ``prune``, ``compensate``, ``train``, ...
        told: plain data.
        instead: the kind of a last step that this one stands for, and takes over what is told of it.
    """
    steps = list(steps_of(model))
    before = steps.pop() if instead is not None and steps and steps[-1].get("step") == instead else {}
    step = {**before, **told, "step": kind, "versions": _versions(), "weights": weights_digest(model)}
    return with_steps(model, [*steps, step])


def with_steps(model: Model, steps: Sequence[Mapping[str, Any]]) -> Model:
    """The model with these steps in place of those that it tells of; without any, it tells nothing."""
    draft = model.edit()
    kept = [entry for entry in model.skeleton.metadata_props if entry.key != KEY]
    del draft.skeleton.metadata_props[:]
    draft.skeleton.metadata_props.extend(kept)
    if steps:
        data = {"format": _FORMAT, "version": _VERSION, "steps": list(steps)}
        draft.skeleton.metadata_props.add(key=KEY, value=json.dumps(data, separators=(",", ":"), sort_keys=True))
    return draft.finish()


def weights_digest(model: Model) -> str:
    """A hash of all weights of the main graph: names, types, shapes and the digests of their values."""
    return _EACH + _over_weights(model, lambda weight: weight.digest)


def has_weights(model: Model, digest: object) -> bool:
    """Whether a file's ``weights`` are of this model: a :func:`weights_digest`, or its first form, over all bytes."""
    if isinstance(digest, str) and not digest.startswith(_EACH):
        return digest == _over_weights(model, lambda weight: contents(weight.array))
    return digest == weights_digest(model)


def _over_weights(model: Model, said: Callable[[Weight], Buffer]) -> str:
    state = hashlib.sha256()
    for name, weight in sorted(model.weights.items()):
        state.update(f"\0{name} {weight.elem_type} {weight.shape}\0".encode("utf-8", "surrogatepass"))
        state.update(said(weight))
    return state.hexdigest()


def without_folders(spec: str) -> str:
    """A data SPEC as it may be told to others: the folder that a file or folder lies in is this machine's business."""
    place, sign, rest = spec.partition("?")
    return os.path.basename(place.rstrip("/\\").replace("\\", "/")) + sign + rest


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # onnxruntime goes by other names, too; a checkout by none.
            continue
    return found
