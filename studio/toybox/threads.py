"""How many threads a step uses on a shared machine."""

from __future__ import annotations

import os
import time

import torch


class Threads:
    """Keeps to a fixed count, or (count 0) to all cores while they are free and to one while others use them.

    Threads of one step wait for the slowest, so where another program takes a core, a second thread makes the step
    several times slower than one alone. With a fixed count a run repeats bit for bit; a changing count changes the
    last bits of its sums.
    """

    _BUSY = 0.85  # with less of the cores' time than this in a step, others are at work
    _PERIOD = 16  # steps between looks at the machine's load

    def __init__(self, count: int) -> None:
        self.shared = count == 0 and hasattr(os, "getloadavg")
        self.most = count or os.cpu_count() or 1
        self.now = 1 if self.shared else self.most
        self.step, self.slow, self.started = 0, 0, (0.0, 0.0)

    def start(self) -> None:
        """Call before a step: sets torch's thread count."""
        if self.shared and self.now == 1 and self.step % self._PERIOD == 0 and os.getloadavg()[0] < 1.6:
            self.now = self.most
        if torch.get_num_threads() != self.now:
            torch.set_num_threads(self.now)
        self.started = time.monotonic(), time.process_time()

    def stop(self) -> None:
        """Call after a step: two steps in a row that did not get the cores end the use of all of them."""
        passed, worked = time.monotonic() - self.started[0], time.process_time() - self.started[1]
        self.step += 1
        if not self.shared or self.now == 1:
            return
        self.slow = self.slow + 1 if worked < self._BUSY * self.most * passed else 0
        if self.slow >= 2:
            self.now, self.slow = 1, 0
