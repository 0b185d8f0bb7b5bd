"""A process that outlives the kernel that started it, and that another kernel finds again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import file_lock
from gpt2lib.utils.formats import read_json, write_json

WINDOWS = sys.platform == "win32"


@contextmanager
def _interruptible() -> Iterator[None]:
    """See to it that a process started here can be interrupted.

    A shell starts background commands with Ctrl-C ignored, and children inherit that: a server
    begun with `jupyter lab &` would start runs that never stop.
    """
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    if not ignored or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


class Background:
    """A Python process started at most once at a time, with its log.

    Attributes:
        record: JSON file with pid, start time and arguments of the process last started.
        log: the file with what it says, one process after the other.
    """

    def __init__(self, record: Path, log: Path) -> None:
        self.record, self.log = record, log
        self._child: subprocess.Popen[bytes] | None = None  # only if this kernel started it

    @property
    def running(self) -> bool:
        """Whether it is alive."""
        if self._child is not None and self._child.poll() is None:
            return True  # asking has also laid to rest one that has ended
        return self._find() is not None

    @property
    def arguments(self) -> list[str] | None:
        """What Python was started with, or None if it never was."""
        if not self.record.is_file():
            return None
        arguments: list[str] = read_json(self.record)["arguments"]
        return arguments

    @property
    def started(self) -> float:
        """When it was last started, in seconds since the epoch; 0 if it never was."""
        return float(read_json(self.record)["started"]) if self.record.is_file() else 0.0

    def start(self, arguments: list[str]) -> None:
        """Start Python with these arguments, unless it runs so already.

        Raises:
            UserError: if it runs with other arguments.
        """
        self.record.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(self.record.with_suffix(".lock")):  # two kernels at once start one process
            if self.running:
                if self.arguments != arguments:
                    raise UserError(
                        f"{self.log.stem} is running with other arguments "
                        f"({' '.join(self.arguments or [])}); stop() it first"
                    )
                return
            beginning = self.log.stat().st_size if self.log.is_file() else 0
            with self.log.open("ab") as log, _interruptible():
                self._child = subprocess.Popen(
                    [sys.executable, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, "PYTHONUNBUFFERED": "1", "TQDM_MININTERVAL": "5"},
                    **_of_its_own(),
                )
            pid = self._child.pid
            place = {"pid": pid, "started": _started(pid), "log_from": beginning}
            write_json(self.record, {**place, "arguments": arguments})

    def interrupt(self, timeout: float) -> None:
        """Do what Ctrl-C does, and wait until the process has ended.

        Raises:
            UserError: if it is still running after `timeout` seconds.
        """
        process = self._find()
        if process is None:
            return
        # To the process alone: under `accelerate launch` it passes the request on by itself.
        process.send_signal(getattr(signal, "CTRL_BREAK_EVENT", signal.SIGINT))
        give_up = time.monotonic() + timeout
        while self.running:
            if time.monotonic() > give_up:
                raise UserError(
                    f"process {process.pid} was asked to stop {timeout:g} s ago and still runs; "
                    f"{self.log} says what it does"
                )
            time.sleep(0.05)

    def last_words(self, refused: bool = False) -> str | None:
        """Return the line of the log that says why the process last started ended, or None.

        Args:
            refused: only a line in which gpt2lib itself says so.
        """
        if not self.record.is_file() or not self.log.is_file():
            return None
        with self.log.open("rb") as log:
            log.seek(read_json(self.record)["log_from"])
            said = log.read().decode("utf-8", "replace")
        lines = [line.strip() for line in said.replace("\r", "\n").splitlines() if line.strip()]
        ours = [line for line in lines if line.startswith(("gpt2lib:", "gpt2lib["))]
        if refused:
            return ours[-1] if ours else None
        if lines and lines[-1] == "KeyboardInterrupt":
            return "it was stopped before it had begun"
        return (ours or lines or ["it said nothing"])[-1]

    def _find(self) -> Any:
        """Return the live process, or None; another process that has got its pid is told apart."""
        import psutil  # type: ignore[import-untyped,unused-ignore]

        if not self.record.is_file():
            return None
        record = read_json(self.record)
        try:
            process = psutil.Process(record["pid"])
            alive = process.status() != psutil.STATUS_ZOMBIE
            same = abs(process.create_time() - record["started"]) < 1
        except psutil.Error:
            return None
        return process if alive and same else None


def _of_its_own() -> dict[str, Any]:
    """Return how to start a process that no closing terminal or kernel takes along."""
    if WINDOWS:
        return {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    return {"start_new_session": True}


def _started(pid: int) -> float:
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:  # it has ended already
        return 0.0
