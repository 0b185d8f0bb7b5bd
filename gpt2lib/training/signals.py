"""Being asked to stop: Ctrl-C, or a scheduler's SIGTERM.

The first signal is only noted; the trainer finishes its update, writes a checkpoint and raises
`Interrupted`. A second one leaves at once, as the system would have it.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

CAUGHT: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM)
if sys.platform == "win32":  # a process started in a group of its own can only be sent this one
    CAUGHT = (*CAUGHT, signal.SIGBREAK)


class Interrupted(Exception):
    """A run stopped because it was asked to, and can be continued.

    Attributes:
        signum: the signal; a process that stops because another one was asked to has SIGTERM.
        step: updates made.
    """

    def __init__(self, signum: int, run: Path, step: int) -> None:
        self.signum = signum or int(signal.SIGTERM)
        self.step = step
        super().__init__(
            f"stopped at step {step}; a checkpoint is written. "
            f"The same command with --out {run} goes on from there"
        )


class StopRequest:
    """While open, notes the first SIGINT or SIGTERM instead of dying from it.

    Attributes:
        signum: the signal that came, or 0.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._before: dict[int, Any] = {}
        self._leave: Callable[[int], Exception] | None = None

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # only there is it allowed
            self._before = {number: signal.signal(number, self._note) for number in CAUGHT}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def leave(self, error: Callable[[int], Exception]) -> None:
        """From now on raise `error(signum)` when a signal comes, and now if one has come.

        For work that can be dropped anywhere, because all before it is saved.
        """
        self._leave = error
        if self.signum:
            raise error(self.signum)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        self._restore()
        if self._leave is not None:
            raise self._leave(signum)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
