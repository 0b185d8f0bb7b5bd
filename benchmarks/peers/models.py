"""The peers whose loop is written by hand: model, loss and optimiser of each, as its project does.

Dropout is 0 everywhere. What else differs from GPT-2 as trained here is said at each.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


class Peer(NamedTuple):
    """A model, its mean loss of (model, idx, targets), both (B, T), and its optimiser."""

    model: nn.Module
    loss: Loss
    optimizer: torch.optim.Optimizer


def nanogpt(spec: dict[str, Any]) -> Peer:
    """Its own optimiser is fused on a GPU and a loop on a CPU. Its GELU is the exact one."""
    sys.path.insert(0, spec["path"])
    from model import GPT, GPTConfig

    model = GPT(GPTConfig(**spec["shape"], dropout=0.0, bias=True)).to(spec["device"])
    optimizer = model.configure_optimizers(0.1, 6e-4, (0.9, 0.95), spec["device"])
    return Peer(model, lambda model, idx, targets: model(idx, targets)[1], optimizer)


def transformers(spec: dict[str, Any]) -> Peer:
    """It shifts the labels itself, so T - 1 targets of a row are scored."""
    model = gpt2_of_transformers(spec).to(spec["device"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-4)
    return Peer(model, lambda model, idx, targets: model(idx, labels=idx).loss, optimizer)


def gpt2_of_transformers(spec: dict[str, Any]) -> Any:
    """Return transformers' GPT-2."""
    from transformers import GPT2Config, GPT2LMHeadModel

    names = {"block_size": "n_positions"}
    shape = {names.get(name, name): size for name, size in spec["shape"].items()}
    none = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    special = {"bos_token_id": 0, "eos_token_id": 0}  # its defaults lie beyond a small vocabulary
    model = GPT2LMHeadModel(GPT2Config(**shape, **none, **special))
    if spec.get("checkpointing"):
        model.gradient_checkpointing_enable()
    return model.train()


def litgpt(spec: dict[str, Any]) -> Peer:
    """It has no learned positions: a quarter of each head is turned, its default (RoPE).

    Embedding and head are tied, as its `train.tie_embeddings` does; the loss is its own.
    """
    from litgpt import GPT, Config
    from litgpt.utils import chunked_cross_entropy

    shape = dict(spec["shape"])
    V = shape.pop("vocab_size")
    config = Config(
        **shape,
        vocab_size=V,
        padded_vocab_size=V,
        parallel_residual=False,
        attn_bias=True,
        gelu_approximate="tanh",
    )
    model = GPT(config).to(spec["device"])
    model.apply(model._init_weights)
    model.transformer.wte.weight = model.lm_head.weight
    fused = spec["device"] == "cuda"
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-4, fused=fused)
    return Peer(model, lambda m, idx, targets: chunked_cross_entropy(m(idx), targets), optimizer)


def llms_from_scratch(spec: dict[str, Any]) -> Peer:
    """Embedding and head are not tied: V x C weights more than the others."""
    from llms_from_scratch.ch04 import GPTModel

    shape = spec["shape"]
    config = {
        "vocab_size": shape["vocab_size"],
        "context_length": shape["block_size"],
        "emb_dim": shape["n_embd"],
        "n_heads": shape["n_head"],
        "n_layers": shape["n_layer"],
        "drop_rate": 0.0,
        "qkv_bias": True,
    }
    model = GPTModel(config).to(spec["device"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-4, weight_decay=0.1)

    def loss(model: nn.Module, idx: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(model(idx).flatten(0, 1), targets.flatten())

    return Peer(model, loss, optimizer)


BY_HAND: dict[str, Callable[[dict[str, Any]], Peer]] = {
    "nanoGPT": nanogpt,
    "transformers": transformers,
    "litgpt": litgpt,
    "llms-from-scratch": llms_from_scratch,
}


def updates(peer: Peer, spec: dict[str, Any], data: list[tuple[Tensor, Tensor]]) -> Any:
    """Return a function that makes the next update and returns its loss."""
    model, loss_of, optimizer = peer
    called = torch.compile(model) if spec["compile"] else model
    parameters = list(model.parameters())
    turn = 0

    def update() -> float:
        nonlocal turn
        idx, targets = data[turn % len(data)]
        turn += 1
        bf16 = torch.autocast(spec["device"], dtype=torch.bfloat16)
        with bf16 if spec["bf16"] else nullcontext():
            loss = loss_of(called, idx, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return update
