"""How good a model is: loss, perplexity, and bits per byte.

Loss in nats per token depends on the tokenizer: longer tokens are harder to guess, and there
are fewer of them. Bits per byte divides by the UTF-8 bytes of the text instead, and so compares
models with different tokenizers. Where documents end with an end-of-text token, the nats that it
costs are among them, though it has no bytes: with short documents about 1 % of the figure, which
`bits_per_byte_without_ends` leaves out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gpt2lib.config import IGNORE, TrainConfig
from gpt2lib.data import Prepared, TokenFile, document_ids, eval_batches
from gpt2lib.data.loader import Loader
from gpt2lib.generation.generator import generate
from gpt2lib.model.gpt import GPT
from gpt2lib.model.kernels.chunked_loss import head_loss
from gpt2lib.model.weights import load_weights, model_tensors
from gpt2lib.runs.log import RunLog
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.process import gather, is_sharded, release

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn


def bits_per_byte(nats: float, n_bytes: int) -> float:
    """Turn the summed loss of a text into bits per byte of that text.

    Args:
        nats: the loss summed over all tokens of the text (natural logarithm).
        n_bytes: length of the text in UTF-8 bytes.

    Raises:
        UserError: if n_bytes is not positive.
    """
    if n_bytes <= 0:
        raise UserError(f"bits per byte needs at least 1 byte of text, not {n_bytes}")
    return nats / (math.log(2) * n_bytes)


@torch.no_grad()
def score(
    model: nn.Module,
    tokens: TokenFile,
    block_size: int,
    batch_size: int = 16,
    limit: int | None = None,
    accelerator: Accelerator | None = None,
    eot: int | None = None,
    end: int | None = None,
) -> dict[str, float]:
    """Score a token file in non-overlapping windows, every token but the first exactly once.

    The first token of a file is its end-of-text mark, so every byte of text is scored. Of joined
    files each is scored by itself.

    Args:
        model: called as `model(idx, targets)`; with `end` it must be a `GPT`.
        tokens: the file to score.
        block_size: length of the windows.
        batch_size: windows at a time.
        limit: number of batches; None scores the whole file.
        accelerator: where and in which precision to compute; the processes share the batches.
            None computes on the model's device in its own precision.
        eot: the end-of-text token, for a model that reads each document by itself; it is then
            called as `model(idx, targets, documents)`. None for one that reads across them.
        end: the end-of-text token, to be told bits per byte without it too. Not with several
            processes.

    Returns:
        `loss` (nats a token), `perplexity`, `bits_per_byte`, `tokens` (how many were scored).
        With a limit, `bits_per_byte` takes the file's mean bytes a token. The perplexity of a
        loss above 700 is given as infinite.

    Raises:
        UserError: if the file has a single token, which has nothing before it to predict it from.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    total = torch.zeros(3, dtype=torch.float64)  # summed loss, tokens scored, loss of the ends
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    for idx, targets in _share(eval_batches(tokens, block_size, batch_size, limit), rank, world):
        idx, targets = idx.to(device), targets.to(device)
        documents = () if eot is None else (document_ids(idx, eot),)
        parts = _loss_of_batch(model, idx, targets, documents, end)
        total += torch.tensor([part.item() for part in parts], dtype=torch.float64)
    if accelerator is not None and world > 1:
        total = accelerator.reduce(total.to(accelerator.device), "sum").cpu()
    model.train(was_training)
    nats, count, at_ends = total.tolist()
    found = {
        "loss": (mean := nats / count),
        "perplexity": math.inf if mean > 700 else math.exp(mean),  # exp(710) overflows
        "bits_per_byte": _bits_per_byte(nats, count, tokens),
        "tokens": int(count),
    }
    if end is not None:
        found["bits_per_byte_without_ends"] = _bits_per_byte(nats - at_ends, count, tokens)
    return found


def _bits_per_byte(nats: float, count: float, tokens: TokenFile) -> float:
    """Return the bits per byte of a file from `count` of its tokens, which have as many bytes."""
    share = count / tokens.n_targets
    return bits_per_byte(nats / share, tokens.header.n_scored_bytes)


def _loss_of_batch(
    model: nn.Module, idx: Tensor, targets: Tensor, documents: Sequence[Tensor], end: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss and the count of `GPT.forward`, and the part of the loss of `end` tokens."""
    if end is None:
        return *model(idx, targets, *documents), torch.zeros(())
    assert isinstance(model, GPT)
    x = model.transformer(idx, None, *documents)  # (B, T, C), read once
    ends = targets == end
    of_ends, _ = head_loss(model.lm_head, x[ends][None], targets[ends][None])
    return *head_loss(model.lm_head, x, targets), of_ends


def _share(
    batches: Iterator[tuple[Tensor, Tensor]], rank: int, world: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield every `world`-th batch, as many in each process.

    Processes that share a model's weights must pass through it equally often. Where batches are
    short at the end, a process gets one with nothing to score, not one that another has scored.
    """
    for first in batches:
        group = [first, *islice(batches, world - 1)]
        idx, targets = first
        yield group[rank] if rank < len(group) else (idx, torch.full_like(targets, IGNORE))


def _whole_model(model: GPT, accelerator: Accelerator) -> GPT | None:
    """Return a model with whole weights for the main process, and None for the others."""
    release(model)
    if not any(map(is_sharded, model.parameters())):
        return model if accelerator.is_main_process else None
    weights = gather(model_tensors(model), accelerator.is_main_process)
    if not accelerator.is_main_process:
        return None
    with torch.random.fork_rng(devices=[]):  # a new model draws weights, and they are replaced
        copy = GPT(model.config)
    load_weights(copy, weights, "the model that trains")
    return copy.to(accelerator.device)


@dataclass
class Evaluator:
    """Judges the model of a run while it trains, and at its end, as its settings say.

    `model` is the model as it trains, `raw_model` the `GPT` inside it. Held-out text is read in
    batches of the size of the loader's micro-batches.
    """

    model: nn.Module
    raw_model: GPT
    data: Prepared
    loader: Loader
    accelerator: Accelerator
    config: TrainConfig
    log: RunLog

    def evaluate(self, step: int, full: bool = False) -> dict[str, Any]:
        """Score held-out text and draw a sample; write both and return them."""
        scores: dict[str, Any] = self.score(full)
        if self.config.sample_tokens and (text := self.sample()) is not None:
            scores["sample"] = text
        self.log.evaluation(step, scores, complete=full)
        return scores

    def score(self, full: bool = False) -> dict[str, float]:
        """Score held-out text, some or all of it; without any, return nothing."""
        config, size, held_out = self.config, self.loader.size, self.data.val
        if held_out is None:
            return {}
        limit = None if full else config.eval_batches * config.batch_size // size
        block_size, eot = config.model.block_size, self.loader.eot
        with self.log.timed("evaluate"):
            return score(self.model, held_out, block_size, size, limit, self.accelerator, eot)

    def sample(self) -> str | None:
        """Continue the configured prompt, with the same random numbers each time.

        Weights that are spread over processes are gathered, so every process must call it; the
        main one gets the text, the others None.
        """
        config = self.config
        with self.log.timed("evaluate"):
            model = _whole_model(self.raw_model, self.accelerator)
            if model is None:
                return None
            prompt = self.data.tokenizer.encode(config.sample_prompt)
            idx = torch.tensor([prompt], device=self.accelerator.device)  # (1, T)
            out = generate(model, idx, config.sample_tokens, top_k=50, seed=config.seed)
            return str(self.data.tokenizer.decode(out[0].tolist()))
