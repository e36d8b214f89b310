"""What lies between two machines, and what an answer takes that passes it."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.errors import UsageError


@dataclass(frozen=True)
class Link:
    """A connection: bits per second, and the seconds until the first of them arrives, each way."""

    rate: float
    delay: float = 0.0

    def __post_init__(self) -> None:
        if not self.rate > 0 or self.rate == float("inf"):
            raise UsageError("a link needs a positive rate, like 10Mbit/20ms; over none there is nothing to split")
        if not self.delay >= 0:
            raise UsageError("the delay of a link cannot be negative")

    def seconds(self, size: float) -> float:
        """What a message of so many bytes takes."""
        return self.delay + 8 * size / self.rate


@dataclass(frozen=True)
class Energy:
    """Joules per bit sent, and per multiply-accumulate on the sending machine."""

    per_bit: float
    per_mac: float

    def __post_init__(self) -> None:
        if not (self.per_bit >= 0 and self.per_mac >= 0):
            raise UsageError("energies cannot be negative")

    def joules(self, size: float, macs: float) -> float:
        """Of sending so many bytes after so much work."""
        return 8 * size * self.per_bit + macs * self.per_mac
