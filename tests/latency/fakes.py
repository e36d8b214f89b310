"""A clock that only the subjects move, so that what is measured is known."""

from __future__ import annotations

from collections.abc import Callable


class FakeClock:
    """Seconds that pass only when somebody lets them."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def taking(self, *seconds: float) -> Callable[[], object]:
        """A subject whose runs take these times, one after the other and again from the start."""
        runs = 0

        def run() -> object:
            nonlocal runs
            self.now += seconds[runs % len(seconds)]
            runs += 1
            return None

        return run
