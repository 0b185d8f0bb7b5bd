"""A pair of equal models: ours, and the one of `transformers` with the same random weights."""

from __future__ import annotations

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2lib.config import GPTConfig
from gpt2lib.model import GPT

TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")


def randomise(
    model: nn.Module, seed: int = 0, std: float = 0.2, embedding_std: float = 0.02
) -> None:
    """Draw every parameter anew, biases and gains too, so that nothing is 0 or 1 by chance.

    With small embeddings the epsilon of the first layer norm matters; with a small `std` that of
    the last one does, too. With large embeddings the likeliest tokens differ from place to place.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            embedding = "wte" in name or "wpe" in name
            p.normal_(std=embedding_std if embedding else std, generator=generator)
            if "ln_" in name and name.endswith("weight"):
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
