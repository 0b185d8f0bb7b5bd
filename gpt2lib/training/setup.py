"""How a run is set up: from what was asked for to the objects that train."""

from __future__ import annotations

import logging
import os
from datetime import timedelta
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import (
    DistributedType,
    GradientAccumulationPlugin,
    broadcast_object_list,
    parse_flag_from_env,
)

from gpt2lib.config import TrainConfig
from gpt2lib.data import Prepared, batch, prepare
from gpt2lib.data.sources import found_from
from gpt2lib.hub import load_pretrained, load_tokenizer_for, resolve, tokenizer_folder
from gpt2lib.hub.adapters import read_adapter
from gpt2lib.model.gpt import GPT
from gpt2lib.runs.checkpoint import STATE, read_model_config
from gpt2lib.runs.folder import RESOLVED, Run
from gpt2lib.runs.trackers import accelerator_arguments, check_trackers
from gpt2lib.training import distributed
from gpt2lib.training.guard import odd_settings
from gpt2lib.training.hardware import require_room, resolve_device, resolve_precision
from gpt2lib.training.memory import resolve_micro_batch
from gpt2lib.training.methods import choose_parameters
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import expand
from gpt2lib.utils.formats import read_json
from gpt2lib.utils.process import world_size

logger = logging.getLogger(__name__)


class Setup(NamedTuple):
    """What a run trains with."""

    config: TrainConfig
    accelerator: Accelerator
    data: Prepared
    model: GPT


def set_up(config: TrainConfig, run: Run) -> Setup:
    """Prepare the data, make the model, and resolve every "auto".

    A resumed run takes what was resolved before, so that it goes on in the same precision.

    Raises:
        UserError: for whatever cannot work, before anything is trained.
    """
    device = resolve_device(wanted_device(config.device))
    if config.trackers:
        check_trackers(config.trackers)
    if config.precision == "fp16":
        resolve_precision("fp16", device)  # refuses a CPU before minutes are spent on data
    processes = join_processes(device)
    check_split(config, processes.num_processes)
    with processes.main_process_first():  # the others find the prepared files
        data = _prepare_data(config, run)
    if processes.num_processes > 1:
        header, resumed = data.train.header, run.checkpoint and run.checkpoint.name
        distributed.check_agreement(
            config, source=header.source, tokenizer=header.tokenizer, checkpoint=str(resumed)
        )
    config = _pin_base(config, run)
    model = _make_model(config, data, run)
    if config.sample_tokens:
        _check_prompt(config, data, model.config.block_size)
    config = _resolve(config.replace(model=model.config), run, device, data, model)
    accelerator = _make_accelerator(config, run, device, model)
    torch.manual_seed(config.seed + 1 + accelerator.process_index)  # dropout differs by process
    if accelerator.is_main_process:
        run.write_config(RESOLVED, config)
        logger.info("%s: %s", data.train.name, _say_text(config, data))
        for part in filter(None, (*data.train.parts, *(data.val.parts if data.val else ()))):
            if said := part.about(config.model.block_size):
                logger.warning("%s: %s", part.name, said)
        if example := data.info.get("example"):
            logger.info("a row, of which what is in [[ ]] is learned:\n%s", example)
        for said in odd_settings(config):
            logger.warning("%s", said)
    return Setup(config, accelerator, data, model)


def wanted_device(device: str) -> str:
    """Return the device of the settings, and for auto what the launcher says, if anything."""
    cpu_only = device == "auto" and parse_flag_from_env("ACCELERATE_USE_CPU")
    return "cpu" if cpu_only else device


def join_processes(device: str) -> PartialState:
    """Meet the other processes, and refuse a launch that silently became many single runs.

    Args:
        device: cpu, cuda or mps.

    Raises:
        UserError: if there are fewer processes than were launched, or this one has another device.
    """
    if "ACCELERATE_MIXED_PRECISION" in os.environ:  # its launcher was here
        distributed.refuse_a_lone_process()
    # One process may prepare a large corpus while the others wait for it.
    processes = PartialState(cpu=device == "cpu", timeout=timedelta(hours=12))
    if processes.num_processes != (launched := world_size()):
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


def check_split(config: TrainConfig, processes: int) -> None:
    """Refuse a global batch that does not divide evenly.

    Raises:
        UserError: with both numbers.
    """
    share, rest = divmod(config.batch_size, processes)
    if rest:
        raise UserError(f"batch_size {config.batch_size} does not divide by {processes} processes")
    config.check_share(share, "process")


def _prepare_data(config: TrainConfig, run: Run) -> Prepared:
    """Prepare the text, with the tokenizer of `init_from` if there is one.

    A resumed run has both weights and tokenizer in its checkpoint, and needs `init_from` no more.
    """
    wanted = config.data
    origin = None if config.init_from is None else run.checkpoint or config.init_from
    if origin is not None and wanted.tokenizer == "auto":
        wanted = wanted.replace(tokenizer=str(tokenizer_folder(origin)))
    about = {}
    if run.checkpoint is not None:
        about = read_json(run.checkpoint / STATE)
        wanted = wanted.replace(source=found_from(run.folder, wanted.source))
    data = prepare(wanted, earlier=about.get("source"))
    if origin is not None:
        theirs = load_tokenizer_for(origin)
        if theirs.fingerprint != data.tokenizer.fingerprint:
            raise UserError(
                f"data.tokenizer {config.data.tokenizer} is not the one that {config.init_from} "
                f"was trained with; leave data.tokenizer at auto"
            )
    data.train.require(config.model.block_size)
    return data


def _check_prompt(config: TrainConfig, data: Prepared, block_size: int) -> None:
    """Refuse what a sample cannot begin with."""
    try:
        prompt = data.tokenizer.encode(config.sample_prompt)
    except UserError as error:
        raise UserError(f"sample_prompt {config.sample_prompt!r}: {error}") from error
    if len(prompt) > block_size:
        raise UserError(
            f"sample_prompt has {len(prompt)} tokens, but block_size is {block_size}; shorten it"
        )


def _say_text(config: TrainConfig, data: Prepared) -> str:
    """Say how much text there is, and how often the run will have read it."""
    seen = config.steps * config.batch_size * config.model.block_size
    parts, shares = data.train.parts, data.train.shares
    passes = [
        seen * share / sum(shares) / part.tokens_in_a_pass(config.model.block_size)
        for part, share in zip(parts, shares, strict=True)
    ]
    over = "it" if len(parts) == 1 else "its sources"
    return f"{data.summary()}; {', '.join(f'{n:,.2g}' for n in passes)} passes over {over}"


def _pin_base(config: TrainConfig, run: Run) -> TrainConfig:
    """Name the very checkpoint that LoRA's matrices stand beside: a run may write newer ones."""
    if config.method.name != "lora" or config.init_from is None:
        return config
    if run.checkpoint is not None:
        return config.replace(init_from=read_adapter(run.checkpoint).base)
    if not expand(config.init_from).exists():
        return config  # a name on the hub
    return config.replace(init_from=str(resolve(config.init_from).resolve()))


def _make_model(config: TrainConfig, data: Prepared, run: Run) -> GPT:
    """Make a new model with the configured seed, or load the one to start from.

    The weights of a run that goes on are read with the rest of its state, later.
    """
    torch.manual_seed(config.seed)
    shape = config.model
    if config.init_from is None:
        shape = shape.replace(vocab_size=data.tokenizer.vocab_size)
        processes = PartialState()
        sharded = processes.distributed_type == DistributedType.FSDP
        shares = processes.num_processes if sharded else 1
        require_room(shape, processes.device.type, shares, config.optim.name == "muon")
        model = GPT(shape)
    else:
        kept: dict[str, Any] = {"block_size": shape.block_size, "dropout": shape.dropout}
        if run.checkpoint is None or config.method.name == "lora":
            model = load_pretrained(config.init_from, **kept)
        else:
            model = GPT(read_model_config(run.checkpoint).replace(**kept))
        _say_whose_shape(config, model)
    choose_parameters(model, config.method)
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


def _resolve(config: TrainConfig, run: Run, device: str, data: Prepared, model: GPT) -> TrainConfig:
    """Replace every "auto" by what it means here, the same in every process.

    A resumed run keeps what was chosen before, where that is still possible.
    """
    earlier = run.earlier_choices()
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
        here, before = config.replace(device=device), earlier.get("micro_batch")
        size = resolve_micro_batch(here, PartialState().num_processes, before)
        config = config.replace(micro_batch=size)
    return config


def _make_accelerator(config: TrainConfig, run: Run, device: str, model: GPT) -> Accelerator:
    """Make Accelerate's object for these settings, whatever its launcher was told beside them.

    Raises:
        UserError: for a way to train that is not supported.
    """
    # The state is one for the whole process, and would refuse another run's precision.
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        mixed_precision="no" if config.precision == "fp32" else config.precision,
        cpu=device == "cpu",
        # What the launcher was told of these would change the mathematics or the model's kind.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        dynamo_backend="no",
        **(accelerator_arguments(config.trackers, run.folder) if config.trackers else {}),
    )
    if accelerator.distributed_type not in distributed.PLAIN or parse_flag_from_env(
        "ACCELERATE_USE_FSDP"
    ):
        distributed.configure(accelerator, model)
    return accelerator
