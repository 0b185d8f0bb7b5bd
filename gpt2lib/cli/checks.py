"""What is missing on this machine, checked piece by piece, each with the way out.

Nothing is downloaded and nothing is left behind.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from gpt2lib.cli.installed import (
    Finding,
    check_accelerate,
    check_kernel,
    check_packages,
    check_python,
)
from gpt2lib.cli.minutes import BUSY
from gpt2lib.data.sources.named import TINY_FILE, TINY_SHA256
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import cache_dir, expand

GB = 1e9
RAM = 1.0, 2.5
"""GB that must be, and had better be, free: `make train` took at most 1.6 GB of resident memory, as
`/usr/bin/time -v gpt2lib train cpu` prints it, and a notebook's kernel holds some more."""

DISK = 0.2, 2.0
"""GB that must be, and had better be, free: the checkpoints of the preset cpu take at most 0.1 GB,
as `gpt2lib estimate cpu` says, and those of GPT-2 small 4.5 GB."""


SLOWER = "unset OMP_NUM_THREADS for a faster training, where no other program uses the cores"


def _room(
    name: str, said: str, free: float, limits: tuple[float, float], problem: str, warning: str
) -> Finding:
    """Compare the GB that are free with those that must be, and with those that had better be."""
    must, better = limits
    if free < must:
        return Finding(name, "problem", said, problem)
    return Finding(name, "warning", said, warning) if free < better else Finding(name, "ok", said)


def check_memory() -> Finding:
    """Look at the memory that is free."""
    import psutil

    memory = psutil.virtual_memory()
    free = memory.available / GB
    said = f"{free:.1f} of {memory.total / GB:.1f} GB free"
    smaller = "close other programs, or make batch_size smaller"
    return _room("memory", said, free, RAM, smaller, "close other notebooks before a full training")


def check_folder(name: str, folder: Path, advice: str) -> Finding:
    """Look whether a folder can be written to, or made, and how much room is left.

    Args:
        name: what is kept there.
        folder: where; it may not exist yet, and is not made.
        advice: what to set to have another folder.
    """
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
        free = shutil.disk_usage(there).free / GB
    except OSError as error:
        return Finding(name, "problem", f"{folder}: cannot write ({error.strerror})", advice)
    said, more = f"{folder}, {free:.1f} GB free", "checkpoints of larger models need more"
    return _room(name, said, free, DISK, f"make room, or {advice}", more)


def check_cores() -> Finding:
    """Compare the threads that PyTorch uses with the cores that this process may use."""
    import torch

    may_ask = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if may_ask else os.cpu_count() or 1
    threads = torch.get_num_threads()
    said = f"{cores} for this process; PyTorch uses {threads} thread{'s' * (threads != 1)}"
    if threads > cores:
        return Finding("cores", "warning", said, f"set OMP_NUM_THREADS={cores}: more only wait")
    if threads == 1 < cores:  # beside another program one thread is as fast as two
        return Finding("cores", "warning", said, SLOWER)
    return Finding("cores", "ok", said)


def check_load(seconds: float = 0.5) -> Finding:
    """Look whether other programs use the cores, which makes the speed test say too little.

    Args:
        seconds: how long to look.
    """
    import psutil

    busy = psutil.cpu_percent(seconds)
    said = f"other programs use {busy:.0f} % of the cores"
    if busy > BUSY:
        advice = "close them and ask again: the minutes are those of a machine as busy as this"
        return Finding("load", "warning", said, advice)
    return Finding("load", "ok", said)


def check_gpu() -> Finding:
    """Say which GPU PyTorch sees."""
    import torch

    if torch.cuda.is_available():
        count, gpu = torch.cuda.device_count(), torch.cuda.get_device_properties(0)
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        said = f"{count} × {gpu.name}, {gpu.total_memory / GB:.0f} GB, {'bf16' if bf16 else 'fp16'}"
        return Finding("GPU", "ok", said)
    if torch.backends.mps.is_available():
        return Finding("GPU", "ok", "Apple's, through mps")
    if shutil.which("nvidia-smi"):
        said = f"nvidia-smi is there, but PyTorch {torch.__version__} sees no GPU"
        return Finding("GPU", "warning", said, "install PyTorch's CUDA build, and a driver")
    return Finding("GPU", "ok", "none; runs use the CPU")


def check_plays() -> Finding:
    """Read the bundled corpus, and compare its hash."""
    from gpt2lib.data.sources.plays import plays

    return _read("corpus plays", lambda: f"{len(plays())} plays, hash as pinned")


def check_vocabulary() -> Finding:
    """Read the two files of GPT-2's vocabulary, and compare their hashes."""
    from gpt2lib.tokenizer.gpt2_vocab import SHA256, gpt2_files, read_verified

    def read() -> str:
        paths = gpt2_files()
        for name, sha256 in SHA256.items():
            read_verified(paths[name], sha256)
        return f"{' and '.join(SHA256)}, hashes as pinned"

    return _read("GPT-2's vocabulary", read)


def _read(name: str, read: Callable[[], str]) -> Finding:
    try:
        return Finding(name, "ok", read())
    except UserError as error:  # says what is wrong, a colon or semicolon, and the way out
        said = str(error)
        cut = said.rfind("; run: " if "; run: " in said else ": pip install")
        return Finding(name, "problem", said[:cut], said[cut:].lstrip(":; "))


def check_tiny() -> Finding:
    """Look whether Tiny Shakespeare, which only the ladder needs, is here; nothing is fetched."""
    name = "Tiny Shakespeare"
    given = os.environ.get("GPT2LIB_DATA")
    places = [expand(given) / TINY_FILE] if given else []
    for path in [*places, cache_dir() / "corpora" / TINY_FILE]:
        if path.is_file():
            if hashlib.sha256(path.read_bytes()).hexdigest() == TINY_SHA256:
                return Finding(name, "ok", str(path))
            return Finding(name, "problem", f"{path} holds something else", "delete it")
    advice = f"the ladder downloads it; offline, put {TINY_FILE} into $GPT2LIB_DATA"
    return Finding(name, "warning", "not on this machine", advice)


def check_allocator() -> Finding:
    """Say how this system hands out memory, on which the speed of a CPU training depends."""
    library, version = platform.libc_ver()
    if library == "glibc":
        return Finding("allocator", "ok", f"glibc {version}: gpt2lib makes it keep freed memory")
    return Finding("allocator", "ok", f"{platform.system()}'s own, left as it is")


def examine(runs: str | Path = "runs") -> list[Finding]:
    """Check everything but the speed.

    Args:
        runs: where runs are kept.
    """
    return [
        check_python(),
        *check_packages(),
        check_kernel(),
        check_memory(),
        check_folder("cache", cache_dir(), "set $GPT2LIB_CACHE to another folder"),
        check_folder("runs", Path(runs), "train with --out in another folder"),
        check_cores(),
        check_load(),
        check_gpu(),
        check_plays(),
        check_vocabulary(),
        check_tiny(),
        check_accelerate(),
        check_allocator(),
    ]
