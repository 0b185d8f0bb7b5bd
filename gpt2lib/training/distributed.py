"""The processes of a run: how they meet, and what they must agree on.

A launcher can go wrong silently: one process where two were asked for, or many that each train
alone and write over one another. Every such case is an error here.
"""

from __future__ import annotations

import os
from datetime import timedelta
from importlib.metadata import version
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object, parse_flag_from_env

from gpt2lib.config import TrainConfig
from gpt2lib.config.schema import flat
from gpt2lib.utils.errors import UserError


def wanted_device(device: str) -> str:
    """Return the device of the settings, and for auto what the launcher says, if anything."""
    if device == "auto" and parse_flag_from_env("ACCELERATE_USE_CPU"):
        return "cpu"
    return device


def join_processes(device: str) -> PartialState:
    """Meet the other processes, and refuse a launch that silently became many single runs.

    Args:
        device: cpu, cuda or mps.

    Raises:
        UserError: if there are fewer processes than were launched, or this one has another device.
    """
    _refuse_a_lone_process(os.environ)
    # One process may prepare a large corpus while the others wait for it.
    processes = PartialState(cpu=device == "cpu", timeout=timedelta(hours=12))
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if processes.num_processes != launched:
        raise UserError(
            f"{launched} processes were launched, but this one is one of "
            f"{processes.num_processes}; say where to train with --device cpu or --device cuda"
        )
    if processes.device.type != device:
        raise UserError(
            f"this process already uses {processes.device.type}, not {device}; "
            f"start a new process, or pass --device {processes.device.type}"
        )
    return processes


def _refuse_a_lone_process(environ: os._Environ[str] | dict[str, str]) -> None:
    """Refuse what `accelerate launch --cpu --num_processes 2` starts: one process.

    Accelerate's launcher for one process then still says where the others would be met, but to
    nobody in particular: there is an address and no WORLD_SIZE. Through MPI there is a size.
    """
    launched_by_accelerate = "ACCELERATE_MIXED_PRECISION" in environ
    sizes = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
    if launched_by_accelerate and "MASTER_PORT" in environ and not any(s in environ for s in sizes):
        raise UserError(
            "several processes were asked for, but accelerate launch started one; on a CPU use "
            "ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes N (if one was "
            "meant, unset MASTER_PORT)"
        )


def check_split(config: TrainConfig, processes: int) -> None:
    """Refuse a global batch that does not divide evenly.

    Raises:
        UserError: with both numbers.
    """
    share, rest = divmod(config.batch_size, processes)
    if rest:
        raise UserError(f"batch_size {config.batch_size} does not divide by {processes} processes")
    config.check_share(share, "process")


def check_agreement(config: TrainConfig, **more: str) -> None:
    """Refuse processes that would train different runs: on another machine, much may differ.

    Every process must call it, and every one gets the same error.

    Args:
        config: what was asked for.
        more: whatever else must be the same, by a name to be shown.

    Raises:
        UserError: naming the first process that differs, and in what.
    """
    mine: dict[str, Any] = {
        "gpt2lib": version("gpt2lib"),
        "PyTorch": str(torch.__version__),
        **more,
    }
    everyone = gather_object([mine | flat(config.to_dict())])
    for rank, theirs in enumerate(everyone):
        first = everyone[0]
        differ = [n for n in {**first, **theirs} if first.get(n) != theirs.get(n)]
        if differ:
            shown = ", ".join(f"{n} {first.get(n)} and {theirs.get(n)}" for n in differ)
            raise UserError(
                f"processes 0 and {rank} would not train the same run ({shown}); start them with "
                f"the same command, version and text, and with --out on a disk that they share"
            )
