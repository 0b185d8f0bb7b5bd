"""How much memory is free here, and the micro-batch that a run takes because of it."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import psutil
import torch

from gpt2lib.config import GPTConfig, TrainConfig
from gpt2lib.estimate import count_parameters, memory
from gpt2lib.estimate.fit import MARGIN, divisors, largest_that_fits, setting_of
from gpt2lib.estimate.update import update_memory
from gpt2lib.model.gpt import GPT
from gpt2lib.utils.errors import UserError

logger = logging.getLogger(__name__)

CGROUP = Path("/sys/fs/cgroup")
"""Where Linux shows what a container may use."""


def available_memory(device: str) -> int:
    """Return the bytes that this process may still take on a device.

    On a CPU the processes of one launch share what is free, and a container may have less than
    the machine.
    """
    if device == "cuda":
        free, _ = torch.cuda.mem_get_info()
        return free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
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


def require_room(model: GPTConfig, device: str, processes: int = 1, muon: bool = False) -> None:
    """Refuse a model that no micro-batch makes small enough, before any of it is made.

    Args:
        model: its shape, with the true vocabulary.
        device: cpu, cuda or mps.
        processes: among how many weights, gradients and moments are shared out; 1 where each has
            them all.
        muon: whether Muon steps the matrices of the blocks.

    Raises:
        UserError: naming what it needs and what is free.
    """
    parts = memory(model, muon)
    needed = (parts["weights"] + parts["gradients"] + parts["optimizer"]) // processes
    free = available_memory(device)
    if needed > free:
        raise UserError(
            f"a model of {count_parameters(model):,} parameters needs {needed / 1e9:.2f} GB for "
            f"weights, gradients and moments alone, but {free / 1e9:.2f} GB are free on {device}; "
            f"take a smaller model.n_layer or model.n_embd"
        )


def largest_micro_batch(
    config: TrainConfig,
    share: int,
    device: str,
    precision: str,
    available: int | None = None,
    processes: int = 1,
) -> int:
    """Return the largest divisor of `share` whose estimated peak fits into what is free.

    Nothing but `available` depends on the machine: processes that agree on it agree on the result.

    Args:
        config: the run; its model has the true vocabulary.
        share: sequences of one process in an update.
        device: cpu, cuda or mps.
        precision: fp32, bf16 or fp16.
        available: bytes that are free; by default those of this machine.
        processes: how many train together.

    Raises:
        UserError: if a single sequence does not fit.
    """
    free = available_memory(device) if available is None else available
    setting = setting_of(config, share, device, precision, processes)
    size = largest_that_fits(config.model, setting, share, free)
    if size:
        return size
    one = setting.of_micro_batch(1, share)
    needed = update_memory(config.model, one).peak
    least = update_memory(config.model, replace(one, checkpointing=1)).peak
    way_out = "a smaller model.block_size or a smaller model needs less"
    if least < needed:
        way_out = f"gradient_checkpointing true needs {least / 1e9:.2f} GB, and {way_out}"
    raise UserError(
        f"even micro_batch 1 needs {needed / 1e9:.2f} GB, but of {free / 1e9:.2f} GB free on "
        f"{device} a run takes at most {(1 - MARGIN) * free / 1e9:.2f} GB; {way_out}"
    )


def choose_micro_batch(
    config: TrainConfig,
    model: GPT,
    share: int,
    device: str,
    precision: str,
    processes: int = 1,
    agree: Callable[[int], int] = int,
) -> int:
    """Find the micro-batch of `--micro_batch auto`, and say in the log what was chosen and why.

    On a GPU the estimate is then tried out, and the next smaller divisor is taken if it does not
    fit after all.

    Args:
        config: the run; its model has the true vocabulary.
        model: the model that will train; it is left as it was.
        share: sequences of one process in an update.
        device: cpu, cuda or mps.
        precision: fp32, bf16 or fp16.
        processes: how many train together.
        agree: returns the least of a number over the processes; each calls it twice.

    Returns:
        Sequences in a micro-batch, a divisor of share.

    Raises:
        UserError: if a single sequence does not fit.
    """
    free = agree(available_memory(device))
    size = largest_micro_batch(config, share, device, precision, free, processes)
    size = agree(tried(model, size, share, device, precision) if device == "cuda" else size)
    setting = setting_of(config, share, device, precision, processes)
    peak = update_memory(config.model, setting.of_micro_batch(size, share // size)).peak
    logger.info(
        "micro_batch: auto → %d of %d sequences at once, %d times an update (estimated peak "
        "%.2f GB of %.2f GB free on %s)",
        *(size, share, share // size, peak / 1e9, free / 1e9, device),
    )
    return size


def tried(model: GPT, size: int, share: int, device: str, precision: str) -> int:
    """Return the largest divisor of `share`, at most `size`, that one pass has room for.

    The pass is made with a copy of the model, in the presence of what AdamW will hold. Random
    state is left as it was.

    Raises:
        UserError: if a single sequence does not fit.
    """
    for candidate in divisors(share):
        if candidate <= size and _fits(model, candidate, device, precision):
            return candidate
    raise UserError(
        f"even micro_batch 1 does not fit on {device}; set gradient_checkpointing, or a smaller "
        f"model.block_size"
    )


def _fits(model: GPT, size: int, device: str, precision: str) -> bool:
    """Make one forward and backward pass; return whether there was room for it."""
    lower = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    cast = nullcontext() if lower is None else torch.autocast(device, dtype=lower)
    twin = moments = None
    try:
        with torch.random.fork_rng(
            devices=[torch.cuda.current_device()] if device == "cuda" else []
        ):
            twin = copy.deepcopy(model).to(device).train()
            moments = [torch.empty_like(p) for p in twin.parameters() for _ in range(2)]
            idx = torch.zeros(size, model.config.block_size, dtype=torch.long, device=device)
            with cast:
                loss, _ = twin(idx, idx)
            loss.backward()
        return True
    except torch.OutOfMemoryError:
        return False
    finally:
        del twin, moments
        if device == "cuda":
            torch.cuda.empty_cache()
