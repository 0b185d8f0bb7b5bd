"""Ctrl-C while a library computes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def interruptible(call: Callable[[], T], stop: Callable[[], None] = lambda: None) -> T:
    """Return what a call returns, and hear Ctrl-C while it lasts.

    Python looks for signals between two of its own steps, and a library that computes for minutes
    takes none. So the call has a thread of its own, which is left behind after a Ctrl-C: it ends
    by itself or with the process.

    Args:
        call: what takes long.
        stop: tells what the call reads from that it is wanted no more.
    """
    made: list[T] = []
    failed: list[BaseException] = []
    finished = threading.Event()

    def work() -> None:
        try:
            made.append(call())
        except BaseException as error:
            failed.append(error)
        finally:
            finished.set()

    threading.Thread(target=work, daemon=True).start()
    try:
        while not finished.wait(0.5):  # without a time, Windows hears no Ctrl-C here
            pass
    except KeyboardInterrupt:
        stop()
        finished.wait(0.5)  # a thread that comes back to an interpreter that ends would abort it
        raise
    if failed:
        raise failed[0]
    return made[0]
