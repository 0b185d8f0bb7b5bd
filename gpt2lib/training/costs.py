"""What a whole run costs, before any of it is spent."""

from __future__ import annotations

from typing import Any

from gpt2lib.config import SIZES, GPTConfig, TrainConfig
from gpt2lib.estimate.counts import (
    BYTES,
    count_parameters,
    forward_flops,
    kv_cache_bytes,
    memory,
    parameter_parts,
    training_flops,
)
from gpt2lib.estimate.update import UpdateMemory, highest


def estimate_run(
    config: TrainConfig, available: int | None = None, processes: int = 1
) -> dict[str, Any]:
    """Estimate a run; its memory is that of one process, which holds the whole model.

    The size of the vocabulary is the tokenizer's, as in training. A character tokenizer knows it
    only once it has read the text, so the text is read then. On a CPU an update is played, which
    takes seconds; elsewhere torch is not imported.

    Args:
        config: the run. A device or precision of auto is taken as cpu, and as fp32 or, on a GPU,
            bf16; whoever can see the machine resolves them before.
        available: bytes that a process may take; with it, the largest micro-batch is found.
        processes: how many train together; batch_size is a multiple.

    Returns:
        Plain dictionaries, ready for JSON:
        `model`, the shape with its true vocabulary;
        `parameters`, `total` and `parts`;
        `flops_per_token`, `forward`, `training` and the `parts` of the forward pass;
        `bytes`, `weights`, `gradients`, `optimizer`, `checkpoint`, and `disk`, at most needed
        for the checkpoints that are kept and the one being written, and `kv_cache`, for
        generating one text of block_size tokens in float32; `activations`, which the blocks of
        this run keep for the backward pass, and the same `activations_without_checkpointing` and
        `activations_with_checkpointing` of every block; `loss`, the most that a
        chunk of logits takes, and the gradients that are made with it; and `peak`, the most of all
        that lives at once;
        `memory`, what the peak is of: `micro_batch`, `accumulation`, `precision`, `device`, the
        `moment` at which it comes, its `parts`, which add up to it, the bytes `available`, and
        whether the run `fits` into them with some room to spare, and the `largest_micro_batch`
        that does, 0 if none;
        `run`, `steps`, `tokens_per_step`, `tokens` and `flops`.

    Raises:
        UserError: if `init_from`, the text or the tokenizer cannot be read.
    """
    config = _resolved(config)
    model = config.model
    flops, forward = training_flops(model, config.gradient_checkpointing), forward_flops(model)
    per_step = config.batch_size * model.block_size
    states = memory(model, config.optim.name == "muon", config.method)
    of_update, described = _memory_of_update(config, available, processes)
    return {
        "model": model.to_dict(),
        "parameters": {"total": count_parameters(model), "parts": parameter_parts(model)},
        "flops_per_token": {"forward": sum(forward.values()), "training": flops, "parts": forward},
        "bytes": {
            **states,
            "disk": (config.keep + 1) * states["checkpoint"],
            "kv_cache": kv_cache_bytes(model, model.block_size, bytes_per_number=BYTES),
            **of_update,
        },
        "memory": described,
        "run": {
            "steps": config.steps,
            "tokens_per_step": per_step,
            "tokens": config.steps * per_step,
            "flops": config.steps * per_step * flops,
        },
    }


def _resolved(config: TrainConfig) -> TrainConfig:
    """Return the run with the shape that it will have, and a device and a precision."""
    device = "cpu" if config.device == "auto" else config.device
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if device == "cuda" else "fp32"
    return config.replace(model=resolved_model(config), device=device, precision=precision)


def _memory_of_update(
    config: TrainConfig, available: int | None, processes: int
) -> tuple[dict[str, int], dict[str, Any]]:
    """Return the bytes of an update, and what they are the bytes of."""
    share = config.batch_size // processes
    update = _update_memory(config, share, processes)
    largest = None if available is None else update.largest(available)
    size = config.micro_batch or share
    if size == "auto":
        size = share if largest is None else largest or 1
    moments = update.moments(size)
    moment, peak = highest(moments)
    few = config.replace(model=config.model.replace(vocab_size=1))  # activations do not see it
    activations = {}
    for name, every in (("without", False), ("with", True)):
        other = moments
        if every != config.gradient_checkpointing:
            again = few.replace(gradient_checkpointing=every)
            other = _update_memory(again, share, processes).moments(size)
        activations[f"activations_{name}_checkpointing"] = other["loss"]["activations"]
    sizes = {name: moments["loss"][name] for name in ("activations", "loss")}
    return {**sizes, **activations, "peak": peak}, {
        "micro_batch": size,
        "accumulation": -(-share // size),
        "precision": config.precision,
        "device": config.device,
        "moment": moment,
        "parts": {name: count for name, count in moments[moment].items() if count},
        "available": available,
        "fits": None if available is None else update.fits(size, available),
        "largest_micro_batch": largest,
    }


def _update_memory(config: TrainConfig, share: int, processes: int) -> UpdateMemory:
    """Return what an update takes; torch is needed only to play it."""
    if config.device != "cpu":
        return UpdateMemory(config, share, processes)
    from gpt2lib.training.memory import update_memory

    return update_memory(config, share, processes)


def resolved_model(config: TrainConfig) -> GPTConfig:
    """Return the shape that the run will have: the vocabulary is known, `init_from` is read."""
    if config.init_from is None:
        return config.model.replace(vocab_size=_vocab_size(config))
    if config.init_from in SIZES:  # no need to download half a gigabyte to know these
        known = GPTConfig.preset(config.init_from)
    else:
        from gpt2lib.hub import model_config

        known = model_config(config.init_from)
    return known.replace(block_size=config.model.block_size, dropout=config.model.dropout)


def _vocab_size(config: TrainConfig) -> int:
    """Return how many tokens the tokenizer of the run will have."""
    from gpt2lib.data import is_prepared, open_prepared, sources_of

    data, each = config.data, list(sources_of(config.data).values())
    for one in each:
        if is_prepared(one.source):
            return open_prepared(one.source).tokenizer.vocab_size
    if data.tokenizer in ("auto", "bpe"):
        return data.vocab_size
    if data.tokenizer == "char":
        from gpt2lib.data.sources import load_corpus

        read = [corpus.read(part) for corpus in map(load_corpus, each) for part in ("train", "val")]
        return len({character for texts in read for text in texts for character in text})
    from gpt2lib.tokenizer import load_tokenizer

    return load_tokenizer(data.tokenizer).vocab_size
