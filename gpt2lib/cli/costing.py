"""The options of `gpt2lib estimate` about GPUs that are not here: how long they take, for how much.

They are asked for by `--gpu`; the others say what is assumed of it.
"""

from __future__ import annotations

import math
import re
from typing import Any

from gpt2lib.config import GPTConfig, TrainConfig
from gpt2lib.estimate.budget import Cluster, budget, memory_per_gpu
from gpt2lib.estimate.counts import count_parameters
from gpt2lib.utils.errors import UserError

ASSUMED = ("gpus", "mfu", "efficiency", "price")
UNITS = {"": 1, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}


def read_cluster(gpu: str | None, assumed: dict[str, Any]) -> Cluster | None:
    """Return the GPUs that were asked for, None without `--gpu`.

    Raises:
        UserError: for an option that needs `--gpu`, or a value that cannot be.
    """
    given = {name: value for name, value in assumed.items() if value is not None}
    if gpu is None:
        if given:
            raise UserError(f"--{next(iter(given))} needs --gpu, such as --gpu H100")
        return None
    try:
        return Cluster(gpu, **given)
    except UserError as error:
        raise UserError(f"--{error}" if not str(error).startswith("unknown") else error) from None


def with_tokens(config: TrainConfig, text: str | None) -> TrainConfig:
    """Return the run with as many steps as it takes to read that many tokens.

    Raises:
        UserError: if the text is no number of tokens.
    """
    if text is None:
        return config
    found = re.fullmatch(r"([0-9]+\.?[0-9]*(?:e[0-9]+)?)([kmbtx]?)", text.strip().lower())
    if found is None:
        raise UserError(
            f"--tokens must be a number such as 300B or 2.5e9, or 20x for 20 tokens a parameter, "
            f"not {text!r}"
        )
    from gpt2lib.training.costs import resolved_model

    of_one = count_parameters(resolved_model(config)) if found[2] == "x" else UNITS[found[2]]
    number = float(found[1]) * of_one
    if not 1 <= number < 1e18:
        raise UserError(f"--tokens must be at least 1 and below 1e18, not {text}")
    per_step = config.batch_size * config.model.block_size
    return config.replace(steps=math.ceil(number / per_step))


def on_cluster(config: TrainConfig, cluster: Cluster) -> TrainConfig:
    """Return the run as those GPUs would do it: one device, one precision.

    Raises:
        UserError: if its batch cannot be shared out, or its precision is none of theirs.
    """
    if config.device not in ("auto", "cuda"):
        raise UserError(f"--gpu {cluster.gpu} and --device {config.device}; leave one of them out")
    share, rest = divmod(config.batch_size, cluster.gpus)
    if rest:
        near = cluster.gpus * max(1, share)
        raise UserError(
            f"batch_size {config.batch_size} does not divide by {cluster.gpus} GPUs; "
            f"--batch_size {near} does"
        )
    config.check_share(share, "GPU")
    precision = cluster.best_precision() if config.precision == "auto" else config.precision
    cluster.peak(precision)
    return config.replace(device="cuda", precision=precision)


def cost(
    config: TrainConfig, cluster: Cluster, found: dict[str, Any], available: int
) -> dict[str, Any]:
    """Return time, money and memory of a run on GPUs.

    Args:
        config: as `on_cluster` returned it.
        cluster: the GPUs.
        found: what `estimate_run` returned for the run.
        available: bytes of one GPU.
    """
    known = config.replace(model=GPTConfig.from_dict(found["model"]))
    return {
        **budget(found["run"]["flops"], cluster, config.precision),
        "recomputes": bool(config.gradient_checkpointing),
        "sequences_per_gpu": config.batch_size // cluster.gpus,
        "memory_per_gpu": memory_per_gpu(known, cluster.gpus, available),
    }


def cost_rows(found: dict[str, Any], available: str) -> dict[str, str]:
    """Return a table's rows for what `cost` returned.

    Args:
        found: that.
        available: what one GPU has, in words.
    """
    many = f"{found['gpus']} × {found['gpu']}"
    peak = f"{found['peak_flops'] / 1e12:g} TFLOP/s in {found['precision']}"
    rows = {
        f"time on {many}": long_duration(found["seconds"]),
        "  assumed": f"{found['mfu']:.0%} of {peak} each, "
        f"{found['efficiency']:.0%} of that together"
        + (", what is computed again included" if found["recomputes"] else ""),
        "GPU-hours": f"{found['gpu_hours']:,.1f}",
    }
    if found["money"] is not None:
        rows["money"] = f"{found['money']:,.2f}, at {found['price']:g} a GPU-hour"
    for name, one in found["memory_per_gpu"].items():
        if name == "shards" and found["gpus"] == 1:
            continue
        size, largest = one["micro_batch"], one["largest_micro_batch"]
        row = f"{one['peak'] / 1e9:.1f} GB with micro-batch {size}, "
        if not one["fits"]:
            row += f"too much for {available}" + (f"; {largest} fits" if largest else "")
        elif size == found["sequences_per_gpu"]:
            row += "which is all that batch_size gives each"
        elif size == largest:
            row += f"the largest that fits into {available}"
        else:
            row += f"as asked; {largest} fits into {available}"
        rows[{"copies": "a whole copy on each", "shards": "spread over them (FSDP2)"}[name]] = row
    return rows


def long_duration(seconds: float) -> str:
    """Write seconds with the unit that suits them, up to years."""
    for unit, size in (("years", 365.25 * 86400), ("days", 86400.0), ("hours", 3600.0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds / 60:.1f} minutes" if seconds >= 90 else f"{seconds:.1f} seconds"
