"""What is said of a model that was quantised."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune._display import percent, seconds

if TYPE_CHECKING:
    from onnxprune.pruning.quantization.quantizing import Quantization

_SHOWN = 5


def quantization_lines(made: Quantization | None) -> list[tuple[str, str]]:
    """What became int8 and what did not, the proof, what it costs and saves; each line with its colour."""
    if made is None:
        return []
    lines: list[tuple[str, str]] = []
    count, total = len(made.layers), len(made.layers) + len(made.floats)
    biases = ", biases corrected" if made.corrected else ""
    if made.certificate is None:
        lines.append(("No layer is faster in int8 here, or the whole file is not: it stays float.", "yellow"))
    else:
        lines.append((f"int8 ({made.format}, ranges by {made.method}): {count} of {total} layers{biases}.", ""))
        lines.extend((line, "green" if made.certificate.passed else "red") for line in made.certificate.sentences)
    shown = list(made.floats.items())[:_SHOWN] if made.layers else []
    lines.extend((f"Float: {name} ({why}).", "") for name, why in shown)
    if len(made.floats) > len(shown) > 0:
        lines.append((f"... and {len(made.floats) - len(shown)} more; --json tells them all.", ""))
    for name, ratio in made.loss.sqnr.items() if made.layers else ():
        lost = percent(made.loss.errors[name])
        lines.append(
            (
                f"Output '{name}' on {made.loss.samples} samples: {ratio:.1f} dB of signal over "
                f"noise, {lost} of its variance lost.",
                "",
            )
        )
    before, after = made.seconds
    faster = f"{before / after:.2f} × as fast" if after else "as fast"
    lines.append((f"Float against int8 ({made.engine}): {seconds(before)} → {seconds(after)}, {faster}.", ""))
    return lines
