"""Answers that never end are stopped: by time, by memory, and by a count of calls.

What runs in Python is stopped within a tenth of a second, on Linux and macOS by a signal, elsewhere
and outside the main thread by an exception that another thread sets. One call into C, such as
`sum(itertools.count())` or the product of two huge matrices, cannot be stopped from inside the
process: it is over when it returns. On Linux, a single request for far too much memory is refused.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

TICK = 0.05
"""Seconds between two looks at the clock and at the memory."""
AGAIN = 1.0
"""Seconds after which an answer that swallowed the exception gets it again."""
MEMORY = 1 << 30
"""Bytes that a call may take beyond what the process has."""
CALLS = 10_000
"""Calls of a function that an exercise hands in."""


class Stopped(BaseException):
    """An answer went over a limit. No `except Exception` in an answer catches it."""


class _Budget:
    """What one call may still take."""

    def __init__(self, seconds: float, memory: int) -> None:
        self.seconds, self.memory = seconds, memory
        self.until, self.resident = time.monotonic() + seconds, _resident() + memory
        self.closed = False
        self.reason = ""

    def spent(self) -> str:
        """Return what is used up, in words, or "". It stays so once it is."""
        if not self.reason and time.monotonic() > self.until:
            self.reason = f"it did not end within {self.seconds:g} seconds"
        elif not self.reason and _resident() > self.resident:
            self.reason = f"it took more than {self.memory / 2**30:.2g} GB of memory"
        return self.reason


def within(seconds: float, function: Callable[[], T], memory: int = MEMORY) -> T:
    """Call a function, and stop it when it takes too long or too much.

    Calls can be nested. A handler and a timer that were there before are there again afterwards,
    and an interrupt from the keyboard is not held up. A debugger is not hurried.

    Args:
        seconds: how long it may take.
        function: what is called.
        memory: bytes by which the process may grow.

    Raises:
        Stopped: with what was used up, "it did not end within 10 seconds".
    """
    budget = _Budget(seconds, memory)
    in_main = threading.current_thread() is threading.main_thread()
    run = _by_signal if hasattr(signal, "setitimer") and in_main else _by_thread
    try:
        with _no_giant(4 * memory):
            return run(budget, function)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):  # PyTorch's
            raise
        raise Stopped("it asked for more memory than there is for it") from None


def _by_signal(budget: _Budget, function: Callable[[], T]) -> T:
    def look(number: int, frame: FrameType | None) -> None:
        if not budget.closed and budget.spent() and not _debugged(frame):
            raise Stopped(budget.reason)

    before = signal.signal(signal.SIGALRM, look)
    started, (left, interval) = time.monotonic(), signal.setitimer(signal.ITIMER_REAL, TICK, TICK)
    try:
        try:
            return function()
        finally:
            budget.closed = True
    finally:  # even if the last tick came in the line above
        budget.closed = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if before is None else before)
        if left:  # somebody's alarm: what is left of it, at once if it is overdue
            rest = max(left - (time.monotonic() - started), 1e-3)
            signal.setitimer(signal.ITIMER_REAL, rest, interval)


def _by_thread(budget: _Budget, function: Callable[[], T]) -> T:
    """Do the same from a second thread, which lets CPython raise in this one."""
    here, over, lock = threading.get_ident(), threading.Event(), threading.Lock()
    put: Any = ctypes.pythonapi.PyThreadState_SetAsyncExc

    def watch() -> None:
        while not over.wait(AGAIN if budget.reason else TICK):
            if budget.spent() and not _debugged(sys._current_frames().get(here)):
                with lock:
                    if not over.is_set():
                        put(ctypes.c_ulong(here), ctypes.py_object(Stopped))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        try:
            return function()
        finally:
            over.set()
    except Stopped as stopped:
        raise stopped if stopped.args else Stopped(budget.reason) from None
    finally:
        with lock:
            over.set()
            put(ctypes.c_ulong(here), None)  # what was set and not yet raised
        thread.join()


def _debugged(frame: FrameType | None) -> bool:
    """Return whether somebody stands in a debugger."""
    while frame is not None:
        if frame.f_globals.get("__name__") in ("bdb", "pdb"):
            return True
        frame = frame.f_back
    return False


def _resident() -> int:
    """Return the bytes that the process has in memory."""
    import psutil

    return int(psutil.Process().memory_info().rss)


@contextlib.contextmanager
def _no_giant(room: int) -> Iterator[None]:
    """Let a single request for more than `room` bytes fail, instead of waking the system's killer.

    Linux only. Growth in small steps is stopped long before, by `_Budget`.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    import resource

    import psutil

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = psutil.Process().memory_info().data + room
    if soft == resource.RLIM_INFINITY or wanted < soft:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


class Counted:
    """A function that an exercise hands in; it looks like that function, and counts its calls."""

    def __init__(self, function: Callable[..., Any], name: str, most: int = CALLS) -> None:
        self._function, self._name, self._left, self._most = function, name, most, most

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise Stopped(f"it called {self._name} {self._most:,} times and did not end")
        return self._function(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)

    def __repr__(self) -> str:
        return repr(self._function)
