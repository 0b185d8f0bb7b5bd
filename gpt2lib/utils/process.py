"""This process: which of those that train together, and how the C library hands it memory.

Nothing but the standard library is imported here.
"""

from __future__ import annotations

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # glibc's names, from malloc.h


SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where a launcher says how many processes it started: torchrun's and accelerate's, then MPI's."""


def rank() -> int:
    """Return which of the processes this is, from 0, as the launcher says; alone it is 0."""
    return int(os.environ.get("RANK") or 0)


def world_size() -> int:
    """Return how many processes there are on all machines, as the launcher says; alone it is 1."""
    return int(os.environ.get(SIZES[0]) or 1)


def keep_freed_memory() -> bool:
    """Keep freed memory for the next step; call it before the first tensor is made.

    By default glibc gives large blocks back to the system when they are freed, and every step
    pays for having their pages cleared again.

    Returns:
        Whether there was a glibc to tell; elsewhere nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, -1)
    libc.mallopt(M_TOP_PAD, 1 << 28)
    return True


def give_back_freed_memory() -> None:
    """Give back what is free now: after work of another size than that of the steps to come."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
