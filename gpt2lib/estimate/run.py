"""What a whole run costs."""

from __future__ import annotations

from dataclasses import replace
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
from gpt2lib.estimate.fit import MARGIN, largest_that_fits, setting_of
from gpt2lib.estimate.update import update_memory


def estimate(
    config: TrainConfig, available: int | None = None, processes: int = 1
) -> dict[str, Any]:
    """Estimate a run; its memory is that of one process, which holds the whole model.

    The size of the vocabulary is the tokenizer's, as in training. A character tokenizer knows it
    only once it has read the text, so the text is read then.

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
        generating one text of block_size tokens in float32; `activations`, the most that are held
        during an update of this run, and the same `activations_without_checkpointing` and
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
    model = resolved_model(config)
    flops = training_flops(model, config.gradient_checkpointing)
    per_step = config.batch_size * model.block_size
    tokens = config.steps * per_step
    of_parameters = memory(model, config.optim.name == "muon")
    forward = forward_flops(model)
    of_update, described = _memory_of_update(config, model, available, processes)
    return {
        "model": model.to_dict(),
        "parameters": {"total": count_parameters(model), "parts": parameter_parts(model)},
        "flops_per_token": {"forward": sum(forward.values()), "training": flops, "parts": forward},
        "bytes": {
            **of_parameters,
            "disk": (config.keep + 1) * of_parameters["checkpoint"],
            "kv_cache": kv_cache_bytes(model, model.block_size, bytes_per_number=BYTES),
            **of_update,
        },
        "memory": described,
        "run": {
            "steps": config.steps,
            "tokens_per_step": per_step,
            "tokens": tokens,
            "flops": tokens * flops,
        },
    }


def _memory_of_update(
    config: TrainConfig, model: GPTConfig, available: int | None, processes: int
) -> tuple[dict[str, int], dict[str, Any]]:
    """Return the bytes of an update, and what they are the bytes of."""
    device = "cpu" if config.device == "auto" else config.device
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if device == "cuda" else "fp32"
    share = config.batch_size // processes
    asked = setting_of(config, share, device, precision, processes)
    fits = None if available is None else largest_that_fits(model, asked, share, available)
    size = config.micro_batch or share
    if size == "auto":
        size = fits or (share if fits is None else 1)
    setting = asked.of_micro_batch(size)
    update = update_memory(model, setting)
    activations = {
        f"activations_{name}_checkpointing": update_memory(
            model, replace(setting, checkpointing=every)
        ).most["activations"]
        for name, every in (("without", 0), ("with", 1))
    }
    sizes = {"activations": update.most["activations"], **activations, "loss": update.most["loss"]}
    return {**sizes, "peak": update.peak}, {
        "micro_batch": setting.micro_batch,
        "accumulation": setting.accumulation,
        "precision": precision,
        "device": device,
        "moment": update.moment,
        "parts": update.parts,
        "available": available,
        "fits": None if available is None else update.peak <= (1 - MARGIN) * available,
        "largest_micro_batch": fits,
    }


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
