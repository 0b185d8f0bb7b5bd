"""Time and money of a run on GPUs, from its FLOPs and from assumptions that are all said.

    seconds = FLOPs / (GPUs · peak · MFU · efficiency)
    GPU-hours = GPUs · seconds / 3600
    money = GPU-hours · price

The peak is the data sheet's. The share of it that a run reaches (MFU), the share of that which is
left when GPUs wait for each other, and the price are not known to anyone before: they are set by
who asks, and only the FLOPs are counted. With gradient checkpointing they include the products that
are computed again, so `mfu` is then the share that all products take.

Reference: Kaplan et al. 2020, section 2.1 (FLOPs); Chowdhery et al. 2022, appendix B (MFU).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from gpt2lib.config import TrainConfig
from gpt2lib.estimate.gpus import GPUS, MEMORY, gpu_peak, known_gpu
from gpt2lib.estimate.update import UpdateMemory
from gpt2lib.utils.errors import UserError, nearest

MFU = 0.4
"""Share of the peak, where nobody says another: an assumption."""
TOKENS_PER_PARAMETER = 20
"""What is best for the loss that a given number of FLOPs reaches.

Reference: Hoffmann et al. 2022, table 3."""
MACHINE = 8
"""GPUs of one machine, which are connected more closely than machines are."""


def assumed_efficiency(gpus: int) -> float:
    """Return the share of their speed that so many GPUs keep: an assumption, not a measurement."""
    return 1.0 if gpus == 1 else 0.95 if gpus <= MACHINE else 0.9


@dataclass(frozen=True)
class Cluster:
    """GPUs of one kind, and what is assumed of them.

    Attributes:
        gpu: part of its name, as in `gpus.GPUS`.
        gpus: how many.
        mfu: share of its peak that each reaches alone.
        efficiency: share of that which is left of each when all work together; None takes
            `assumed_efficiency`.
        price: of one GPU for one hour, in any currency; None where money is not asked for.

    Raises:
        UserError: for an unknown GPU, or a number that cannot be.
    """

    gpu: str
    gpus: int = 1
    mfu: float = MFU
    efficiency: float | None = None
    price: float | None = None

    def __post_init__(self) -> None:
        if known_gpu(self.gpu) is None:
            names = [name for name, _ in GPUS]
            hint = nearest(self.gpu, names)
            raise UserError(f"unknown gpu {self.gpu!r}{hint}; known are {', '.join(names)}")
        if not 1 <= self.gpus <= 2**20:
            raise UserError(f"gpus must be at least 1 and at most {2**20:,}, not {self.gpus}")
        for name in ("mfu", "efficiency"):
            share = getattr(self, name)
            if share is not None and not 0 < share <= 1:
                hint = f"; {share:g} % is {share / 100:g}" if 2 <= share <= 100 else ""
                raise UserError(f"{name} is a share, above 0 and at most 1, not {share}{hint}")
        if self.price is not None and not 0 <= self.price < math.inf:
            raise UserError(f"price must be 0 or more, and finite, not {self.price}")

    @property
    def kept(self) -> float:
        """The efficiency that was set, or the assumed one."""
        return assumed_efficiency(self.gpus) if self.efficiency is None else self.efficiency

    def best_precision(self) -> str:
        """Return bf16, or fp16 on a GPU that is too old for it."""
        return "bf16" if gpu_peak(self.gpu, "bf16") else "fp16"

    def peak(self, precision: str) -> float:
        """Return the FLOP/s of one GPU; fp32 is TF32 where there is such a thing, as in training.

        Raises:
            UserError: if it does not compute in this precision.
        """
        found = gpu_peak(self.gpu, "tf32" if precision == "fp32" else precision)
        if found is None:
            raise UserError(
                f"{known_gpu(self.gpu)} does not compute in {precision}; it can be fp16 or fp32"
            )
        return found

    @property
    def memory(self) -> int:
        """Bytes of one GPU."""
        return int(MEMORY[str(known_gpu(self.gpu))])


def budget(flops: float, cluster: Cluster, precision: str) -> dict[str, Any]:
    """Return what a run of so many FLOPs takes.

    Args:
        flops: of the whole run, on all GPUs together.
        cluster: the GPUs, and what is assumed of them.
        precision: fp32, bf16 or fp16.

    Returns:
        The assumptions, `gpu`, `gpus`, `precision`, `peak_flops` of one GPU, `mfu`, `efficiency`
        and `price`; and `seconds`, `gpu_hours`, and `money`, None without a price.
    """
    peak = cluster.peak(precision)
    seconds = flops / (cluster.gpus * peak * cluster.mfu * cluster.kept)
    gpu_hours = cluster.gpus * seconds / 3600
    return {
        "gpu": known_gpu(cluster.gpu),
        "gpus": cluster.gpus,
        "precision": precision,
        "peak_flops": peak,
        "mfu": cluster.mfu,
        "efficiency": cluster.kept,
        "price": cluster.price,
        "seconds": seconds,
        "gpu_hours": gpu_hours,
        "money": None if cluster.price is None else gpu_hours * cluster.price,
    }


def memory_per_gpu(config: TrainConfig, gpus: int, available: int) -> dict[str, dict[str, Any]]:
    """Return what each of several GPUs holds, with whole copies of the model and with shares.

    Args:
        config: the run; device and precision are resolved, the vocabulary is the true one. Without
            a number as micro_batch it takes the most that fit, or 1.
        gpus: how many train together; batch_size is a multiple.
        available: bytes of one GPU.

    Returns:
        `copies` (data parallelism) and `shards` (FSDP2), each with `largest_micro_batch`, 0 if
        none fits, the `micro_batch` that is taken, the `peak` with it, and whether that `fits`.
    """
    share, found = config.batch_size // gpus, {}
    for name, shards in (("copies", 1), ("shards", gpus)):
        update = UpdateMemory(config, share, gpus, shards)
        largest = update.largest(available)
        size = config.micro_batch if isinstance(config.micro_batch, int) else largest or 1
        found[name] = {
            "largest_micro_batch": largest,
            "micro_batch": size,
            "peak": update.peak(size),
            "fits": update.fits(size, available),
        }
    return found
