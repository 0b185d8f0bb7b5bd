"""Pairs of equal models: ours, and one of `transformers` with the same random weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from gpt2lib.config import GPTConfig
from gpt2lib.hub import export, load_pretrained
from gpt2lib.hub.saving import save_model
from gpt2lib.model.gpt import GPT
from gpt2lib.tokenizer import CharTokenizer

TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")


def randomise(
    model: nn.Module, seed: int = 0, std: float = 0.2, embedding_std: float = 0.02
) -> None:
    """Draw every parameter anew, biases and gains too, so that nothing is 0 or 1 by chance.

    With small embeddings the epsilon of the first layer norm matters; with a small `std` that of
    the last one does, too. With large embeddings the likeliest tokens differ by position.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            embedding = "wte" in name or "wpe" in name or "embed_tokens" in name
            p.normal_(std=embedding_std if embedding else std, generator=generator)
            if ("ln_" in name or "norm" in name) and name.endswith("weight"):
                p.add_(1.0)


def twins(
    config: GPTConfig, seed: int = 0, std: float = 0.2, embedding_std: float = 0.02
) -> tuple[GPT, GPT2LMHeadModel]:
    """Return our model and its twin, both in evaluation mode."""
    ours = GPT(config).eval()
    randomise(ours, seed, std, embedding_std)
    theirs = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.block_size,
            n_embd=config.n_embd,
            n_layer=config.n_layer,
            n_head=config.n_head,
            tie_word_embeddings=config.tie_weights,
            bos_token_id=0,
            eos_token_id=None,
        )
    ).eval()
    weights = {
        name: value.T if name.endswith(TRANSPOSED) else value
        for name, value in ours.state_dict().items()
    }
    theirs.load_state_dict(weights, strict=True)
    return ours, theirs


CHARACTERS = CharTokenizer("abcdefghijklmnopqrstuvwxyz .,;!?")
TINY = GPTConfig(
    vocab_size=CHARACTERS.vocab_size, block_size=24, n_layer=2, n_head=4, n_embd=32, dropout=0.1
)


def patterns() -> Iterator[GPTConfig]:
    """Yield every attention that can be exported: positions, key/value heads, window."""
    for position, n_kv_head in product(("learned", "none", "rope"), (None, 2, 1)):
        for window in (None, 5) if position == "rope" else (None,):
            yield TINY.replace(position=position, n_kv_head=n_kv_head, window=window)
    yield TINY.replace(position="rope", rope_base=500.0, rope_scale=2.0, n_kv_head=2, window=5)


def variants(config: GPTConfig) -> Iterator[GPTConfig]:
    """Yield it with and without biases and tying, and with each GELU."""
    for bias, tied, gelu in product((True, False), (True, False), ("tanh", "exact")):
        yield config.replace(bias=bias, tie_weights=tied, gelu=gelu)


@dataclass(frozen=True)
class Parity:
    """How far two models are apart: the largest difference of a logit.

    Attributes:
        architecture: the class of transformers.
        out: of our model and transformers' of its export.
        back: of a model that transformers wrote, with weights of its own, and ours of it.
        size: the largest logit, to compare with.
    """

    architecture: str
    out: float
    back: float
    size: float


@torch.no_grad()
def parity(config: GPTConfig, folder: Path) -> Parity:
    """Compare in both directions, on all positions of the block; writes into `folder`."""
    ours = GPT(config).eval()
    randomise(ours)
    save_model(ours, CHARACTERS, folder / "ours")
    exported = export(folder / "ours", folder / "exported")
    theirs, loading = AutoModelForCausalLM.from_pretrained(exported, output_loading_info=True)
    assert not any(loading.values()), loading  # nothing initialised at random, nothing left over
    idx = torch.randint(config.vocab_size, (2, config.block_size))
    logits = ours(idx)
    other = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(exported)).eval()
    randomise(other, seed=1)
    other.save_pretrained(folder / "theirs")
    return Parity(
        type(theirs).__name__,
        float((logits - theirs(idx).logits).abs().max()),
        float((load_pretrained(folder / "theirs")(idx) - other(idx).logits).abs().max()),
        float(logits.abs().max()),
    )
