"""The processes of a run: how they meet, what they must agree on, and how they share a model.

A launcher can go wrong silently: one process where two were asked for, or many that each train
alone and write over one another. Every such case is an error here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, gather_object

from gpt2lib.config import TrainConfig
from gpt2lib.config.schema import flat
from gpt2lib.model.gpt import GPT
from gpt2lib.model.lora import has_lora
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.process import SIZES, world_size

logger = logging.getLogger(__name__)

PLAIN = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
"""The ways to train on which every process holds the whole model."""


def refuse_a_lone_process(environ: Mapping[str, str] = os.environ) -> None:
    """Refuse what `accelerate launch --cpu --num_processes 2` starts: one process.

    Accelerate's launcher for one process then still says where the others would be met, but to
    nobody in particular: there is an address and no number of processes. Through MPI there is one.

    Raises:
        UserError: saying how to start several.
    """
    launched_by_accelerate = "ACCELERATE_MIXED_PRECISION" in environ
    if launched_by_accelerate and "MASTER_PORT" in environ and not any(s in environ for s in SIZES):
        raise UserError(
            "several processes were asked for, but accelerate launch started one; on a CPU use "
            "ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes N (if one was "
            "meant, unset MASTER_PORT)"
        )


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


def explain_a_lost_process(error: RuntimeError) -> None:
    """Say it in one line when this process lost those that it computes with.

    Raises:
        UserError: in place of what the library of the connection says.
    """
    lost = isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
    if lost and world_size() > 1:
        raise UserError(
            "another process of this run has ended, its own last line may say why; the same "
            "command goes on from the last checkpoint"
        ) from error


def configure(accelerator: Accelerator, model: GPT) -> None:
    """Make ready for FSDP2, where it is configured and can be had; refuse what is not supported.

    Raises:
        UserError: for another way to train than `PLAIN` and FSDP2, and as `configure_fsdp`.
    """
    if accelerator.distributed_type == DistributedType.FSDP:
        if has_lora(model):
            raise UserError("method lora is not supported with FSDP; without it, it needs little")
        configure_fsdp(accelerator, model)
    elif accelerator.distributed_type not in PLAIN:
        raise UserError(
            f"{accelerator.distributed_type.value} was configured for Accelerate, but is not "
            f"supported; choose plain data parallelism (multi-GPU) or FSDP2"
        )
    elif accelerator.is_main_process:
        logger.warning(
            "FSDP was asked for, but Accelerate has it on GPUs only: every process holds the "
            "whole model"
        )


def configure_fsdp(accelerator: Accelerator, model: GPT) -> None:
    """Decide how FSDP2 spreads a model; whatever was configured that would not work is refused.

    Each block is gathered by itself, the rest of the model with the embedding. Shares are float32,
    and mixed precision is autocast, as without shards: FSDP's own would return the summed loss of
    thousands of tokens in bf16, which has 8 bits for it.

    Raises:
        UserError: for FSDP1, fp16, weights kept in main memory, or FSDP's own checkpointing.
    """
    from torch.distributed.fsdp import CPUOffloadPolicy
    from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

    plugin, precision = accelerator.state.fsdp_plugin, accelerator.mixed_precision
    if plugin.fsdp_version != 2:
        raise UserError(f"fsdp_version is {plugin.fsdp_version}; set it to 2 (launch/fsdp2.yaml)")
    if precision == "fp16":
        raise UserError("precision fp16 does not work with FSDP here; use bf16 or fp32")
    if isinstance(plugin.cpu_offload, CPUOffloadPolicy):
        raise UserError("fsdp_offload_params is not supported; set it to false")
    if plugin.activation_checkpointing:
        raise UserError(
            "fsdp_activation_checkpointing renames the weights; set it to false and use "
            "--gradient_checkpointing true"
        )
    plugin.mixed_precision_policy = None
    # Every process has made the same weights already; and it would untie the tied ones.
    plugin.cpu_ram_efficient_loading = False
    plugin.auto_wrap_policy = transformer_auto_wrap_policy
    plugin.transformer_cls_names_to_wrap = sorted({type(b).__name__ for b in model.transformer.h})
    if precision == "bf16":
        cast = torch.autocast(accelerator.device.type, torch.bfloat16)
        model.forward = cast(model.forward)  # type: ignore[method-assign]
