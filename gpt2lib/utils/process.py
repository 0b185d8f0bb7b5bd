"""The process: which of those that train together, its memory, what it holds of a tensor, Ctrl-C.

Plain data parallelism keeps a whole copy of weights, gradients and optimiser state in every
process. FSDP2 keeps a share of each in every process and gathers a block's weights when the block
is computed. The mathematics are the same, and so are the checkpoints: they hold whole tensors, and
a run may go on with shards or without. To gather is a collective act: every process has to do it,
in the same order, or all of them wait for ever.

torch is imported only where tensors are met, for commands ask who they are without it.

Reference: Rajbhandari et al. 2020 (ZeRO), section 5; Zhao et al. 2023 (FSDP).
"""

from __future__ import annotations

import ctypes
import os
import platform
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor, nn

T = TypeVar("T")

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # glibc's names, from malloc.h
SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where a launcher says how many processes it started: torchrun's and accelerate's, then MPI's."""
CGROUP = Path("/sys/fs/cgroup")
"""Where Linux shows what a container may use."""


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


def available_memory(device: str) -> int:
    """Return the bytes that this process may still take on a device.

    On a CPU the processes of one launch share what is free, and a container may have less than
    the machine.
    """
    if device == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info()
        return free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    import psutil

    left = [int(psutil.virtual_memory().available)]
    limit = cgroup_left()
    if limit is not None:
        left.append(limit)
    return min(left) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def cgroup_left(root: Path = CGROUP) -> int | None:
    """Return the bytes left in this process's container, None where it has no limit.

    Pages of files that nobody reads at the moment count as free: the system drops them at need.

    Args:
        root: where the files are; both versions of Linux's control groups are understood.
    """
    names = (
        (root, "memory.max", "memory.current", "inactive_file"),
        (root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    )
    for folder, limit_name, used_name, dropped_name in names:
        try:
            limit = (folder / limit_name).read_text(encoding="utf-8").strip()
            used = int((folder / used_name).read_text(encoding="utf-8"))
            stat = (folder / "memory.stat").read_text(encoding="utf-8")
        except OSError:
            continue
        if limit == "max" or int(limit) >= 1 << 60:  # version 1 writes "no limit" as a huge number
            return None
        counts = dict(line.split() for line in stat.splitlines())
        return max(0, int(limit) - used + int(counts.get(dropped_name, 0)))
    return None


def sum_over_processes(accelerator: Accelerator, *values: float) -> list[float]:
    """Add up numbers over the processes; every process must call it."""
    if accelerator.num_processes == 1:
        return list(values)
    import torch

    tensor = torch.tensor([float(v) for v in values], device=accelerator.device)
    return accelerator.reduce(tensor, "sum").tolist()  # type: ignore[no-any-return]


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds only its share of a tensor."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor with the shares of all processes; every process must call it."""
    full: Tensor = getattr(tensor, "full_tensor", lambda: tensor)()
    return full


def release(model: nn.Module) -> None:
    """Let go of weights that are gathered, so that a model's parameters are its shares again.

    After an evaluation those outside the blocks still lie there whole, as parameters that the
    optimiser does not know.
    """
    for module in model.modules():
        reshard = getattr(module, "reshard", None)
        if callable(reshard):
            reshard()


def gather(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Make named tensors whole, one after the other; every process must call it.

    Args:
        tensors: the same names in the same order in every process.
        keep: whether this process wants them. They then lie in its main memory, so that the GPU
            holds one whole tensor at a time. Tensors that were whole already stay as they are.
    """
    gathered = {}
    for name, tensor in tensors.items():
        full = whole(tensor.detach())
        if keep:
            gathered[name] = full.cpu() if is_sharded(tensor) else full
    return gathered


def like(tensor: Tensor, place: Tensor) -> Tensor:
    """Return this process's share of a whole tensor, where `place` is spread over processes.

    Args:
        tensor: the same in every process; nothing is sent.
        place: a tensor of the same shape, which says how it is spread; if it is not, the tensor is
            returned as it is.
    """
    if not is_sharded(place):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(place, DTensor)
    there = tensor.to(place.device)
    return distribute_tensor(there, place.device_mesh, place.placements, src_data_rank=None)


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
