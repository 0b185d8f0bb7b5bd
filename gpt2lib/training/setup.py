"""How a run starts: from what was asked for to the objects that train."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import (
    DistributedType,
    GradientAccumulationPlugin,
    broadcast_object_list,
    gather_object,
    parse_flag_from_env,
)

from gpt2lib.config import TrainConfig
from gpt2lib.data import Prepared, batch, prepare
from gpt2lib.hub import load_pretrained, load_tokenizer_for, tokenizer_folder
from gpt2lib.model.gpt import GPT
from gpt2lib.runs.folder import Run
from gpt2lib.runs.resume import earlier_choices
from gpt2lib.runs.trackers import accelerator_arguments, check_trackers
from gpt2lib.training.distributed import check_agreement, check_split, join_processes, wanted_device
from gpt2lib.training.hardware import resolve_device, resolve_precision
from gpt2lib.training.memory import choose_micro_batch, require_room
from gpt2lib.utils import sharded as sharding
from gpt2lib.utils.errors import UserError

logger = logging.getLogger(__name__)

PLAIN = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
"""The ways to train on which every process holds the whole model."""


class Start(NamedTuple):
    """What a run starts with."""

    config: TrainConfig
    accelerator: Accelerator
    data: Prepared
    model: GPT


def start(config: TrainConfig, run: Run) -> Start:
    """Prepare the data, make the model, and resolve every "auto".

    A resumed run takes what was resolved before, so that it goes on in the same precision.

    Raises:
        UserError: for whatever cannot work, before anything is trained.
    """
    device = resolve_device(wanted_device(config.device))
    check_trackers(config.trackers)
    if config.precision == "fp16":
        resolve_precision("fp16", device)  # refuses a CPU before minutes are spent on data
    processes = join_processes(device)
    check_split(config, processes.num_processes)
    with processes.main_process_first():  # the others find the prepared files
        data = _prepare_data(config, run)
    header, checkpoint = data.train.header, run.checkpoint and run.checkpoint.name
    check_agreement(
        config, source=header.source, tokenizer=header.tokenizer, checkpoint=str(checkpoint)
    )
    model = _make_model(config, data, run)
    if config.sample_tokens:
        _check_prompt(len(data.tokenizer.encode(config.sample_prompt)), model.config.block_size)
    config = _resolve(config.replace(model=model.config), run, device, data, model)
    precision = config.precision
    # The state is one for the whole process, and would refuse another run's precision.
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        mixed_precision="no" if precision == "fp32" else precision,
        cpu=device == "cpu",
        # What the launcher was told of these would change the mathematics or the model's kind.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        dynamo_backend="no",
        **accelerator_arguments(config.trackers, run.folder),
    )
    if accelerator.distributed_type == DistributedType.FSDP:
        sharding.configure(accelerator, model)
    elif accelerator.distributed_type not in PLAIN:
        raise UserError(
            f"{accelerator.distributed_type.value} was configured for Accelerate, but is not "
            f"supported; choose plain data parallelism (multi-GPU) or FSDP2"
        )
    elif parse_flag_from_env("ACCELERATE_USE_FSDP") and accelerator.is_main_process:
        logger.warning(
            "FSDP was asked for, but Accelerate has it on GPUs only: every process holds the "
            "whole model"
        )
    torch.manual_seed(config.seed + 1 + accelerator.process_index)  # dropout differs by process
    if accelerator.is_main_process:
        run.write_config("config.yaml", config)
        for name in config.optim.unused():
            logger.warning(
                "optim.%s is %s, but nothing reads it: optim.name is %s",
                name,
                getattr(config.optim, name),
                config.optim.name,
            )
    return Start(config, accelerator, data, model)


@contextmanager
def one_line_when_others_end() -> Iterator[None]:
    """Say it in one line when this process lost those that it computes with.

    Raises:
        UserError: in place of what the library of the connection says.
    """
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
        if not lost or int(os.environ.get("WORLD_SIZE", "1")) == 1:
            raise
        raise UserError(
            "another process of this run has ended, its own last line may say why; the same "
            "command goes on from the last checkpoint"
        ) from error


def _resolve(config: TrainConfig, run: Run, device: str, data: Prepared, model: GPT) -> TrainConfig:
    """Replace every "auto" by what it means here, the same in every process.

    A resumed run keeps what was chosen before, where that is still possible.
    """
    earlier = earlier_choices(run)
    precision = earlier.get("precision", config.precision)
    if precision == "auto":
        size = 8 if config.micro_batch == "auto" else config.micro_batch or config.batch_size
        block_size = model.config.block_size
        starts = data.train.windows(block_size, config.seed, range(min(8, size)))
        idx, _ = batch(data.train, starts, block_size)
        precision = resolve_precision("auto", device, model, idx)
    resolve_precision(precision, device)  # a run that began on a GPU may go on where fp16 fails
    (precision,) = broadcast_object_list([precision])  # the processes may have timed differently
    config = config.replace(precision=precision)
    if config.micro_batch == "auto":
        processes = PartialState().num_processes
        share, before = config.batch_size // processes, earlier.get("micro_batch")
        if not isinstance(before, int) or share % before:
            before = choose_micro_batch(
                config,
                model,
                share,
                device,
                precision,
                processes,
                lambda n: min(gather_object([n])),
            )
        config = config.replace(micro_batch=before)
    return config


def _prepare_data(config: TrainConfig, run: Run) -> Prepared:
    """Prepare the text, with the tokenizer of `init_from` if there is one.

    A resumed run has both weights and tokenizer in its checkpoint, and needs `init_from` no more.
    """
    wanted = config.data
    origin = None if config.init_from is None else run.checkpoint or config.init_from
    if origin is not None and wanted.tokenizer == "auto":
        wanted = wanted.replace(tokenizer=str(tokenizer_folder(origin)))
    data = prepare(wanted)
    if origin is not None:
        theirs = load_tokenizer_for(origin)
        if theirs.fingerprint != data.tokenizer.fingerprint:
            raise UserError(
                f"data.tokenizer {config.data.tokenizer} is not the one that {config.init_from} "
                f"was trained with; leave data.tokenizer at auto"
            )
    data.train.require(config.model.block_size)
    return data


def _make_model(config: TrainConfig, data: Prepared, run: Run) -> GPT:
    """Make a new model with the configured seed, or load the one to start from."""
    torch.manual_seed(config.seed)
    if config.init_from is None:
        wanted = config.model.replace(vocab_size=data.tokenizer.vocab_size)
        processes = PartialState()
        sharded = processes.distributed_type == DistributedType.FSDP
        shares = processes.num_processes if sharded else 1
        require_room(wanted, processes.device.type, shares, config.optim.name == "muon")
        model = GPT(wanted)
    else:
        origin, shape = run.checkpoint or config.init_from, config.model
        model = load_pretrained(origin, block_size=shape.block_size, dropout=shape.dropout)
        _say_whose_shape(config, model)
    model.transformer.gradient_checkpointing = config.gradient_checkpointing
    return model.train()


def _say_whose_shape(config: TrainConfig, model: GPT) -> None:
    """Log where the model that a run starts from is not as the configuration says."""
    wanted = config.model.replace(vocab_size=model.config.vocab_size).to_dict()
    differ = [
        f"{k} {v} (not {wanted[k]})" for k, v in model.config.to_dict().items() if v != wanted[k]
    ]
    if differ:
        logger.info("the model's shape is that of %s: %s", config.init_from, ", ".join(differ))


def _check_prompt(n_tokens: int, block_size: int) -> None:
    """Refuse a prompt of the samples that the model cannot read."""
    if n_tokens > block_size:
        raise UserError(
            f"sample_prompt has {n_tokens} tokens, but block_size is {block_size}; shorten it"
        )
