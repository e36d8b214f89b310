"""What is said of a model that was quantised."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune._display import long, percent, seconds

if TYPE_CHECKING:
    from onnxprune.pruning.quantization.converting import Conversion
    from onnxprune.pruning.quantization.measuring import Loss
    from onnxprune.pruning.quantization.quantizing import Quantization

_SHOWN = 5


def quantization_lines(made: Quantization | None) -> list[tuple[str, str]]:
    """What became int8 and what did not, the proof, what it costs and saves; each line with its colour."""
    if made is None:
        return []
    lines: list[tuple[str, str]] = []
    count, total = len(made.layers), len(made.layers) + len(made.floats)
    biases = ", biases corrected" if made.corrected else ""
    biases += f", channels of {made.equalised} tensors equalised" if made.equalised else ""
    if made.certificate is None:
        lines.append(("No layer is faster in int8 here, or the whole file is not: it stays float.", "yellow"))
    else:
        lines.append((f"int8 ({made.format}, ranges by {made.method}): {count} of {total} layers{biases}.", ""))
        lines.extend((line, "green" if made.certificate.passed else "red") for line in made.certificate.sentences)
    shown = list(made.floats.items())[:_SHOWN] if made.layers else []
    lines.extend((f"Float: {name} ({why}).", "") for name, why in shown)
    if len(made.floats) > len(shown) > 0:
        lines.append((f"... and {len(made.floats) - len(shown)} more; --json tells them all.", ""))
    lines += _losses(made.loss, "generated " if made.fidelity.made else "") if made.layers else []
    before, after = made.seconds
    faster = f"{before / after:.2f} × as fast" if after else "as fast"
    lines.append((f"Float against int8 ({made.engine}): {seconds(before)} → {seconds(after)}, {faster}.", ""))
    return lines


def _losses(loss: Loss, kind: str = "") -> list[tuple[str, str]]:
    return [
        (
            f"Output '{name}' on {loss.samples} {kind}samples: {ratio:.1f} dB of signal over noise, "
            f"{percent(loss.errors[name])} of its variance lost.",
            "",
        )
        for name, ratio in loss.sqnr.items()
    ]


#: Why a form need not be faster.
_SIZE_ONLY = {
    "float16": "onnxruntime's CPU kernels have few of 16 bits, and cast for the others",
    "int8 weights": "size only: onnxruntime makes floats of them as it loads the file",
    "int4 weights": "size only: weights become floats block by block as it runs",
    "dynamic int8": "finding ranges takes as long as integers save",
}


def conversion_lines(made: Conversion) -> list[tuple[str, str]]:
    """The proof of a form without calibration, what it costs and saves; each line with its colour."""
    before, after = made.seconds
    old, new = made.sizes
    lines = [(f"{made.form}. {made.weights.sentence}", "green")]
    lines += _losses(made.loss, "generated " if made.generated else "")
    told = f"Time of a run ({made.engine}): {seconds(before)} → {seconds(after)}, {made.ratio:.2f} of the float model's"
    lines.append((f"{told}." if made.faster else f"{told}; it is no faster ({_SIZE_ONLY[made.form]}).", ""))
    if not made.smaller:
        lines.append((f"The file is no smaller ({long(new, 'B')} of {long(old, 'B')}).", "yellow"))
    return lines
