"""What a model and a run cost, before any of it is spent: parameters, FLOPs, bytes, tokens.

All of it is arithmetic on the configuration; torch is not imported.

Conventions for FLOPs. A multiplication and an addition are two. Counted are the products of
matrices: 2 FLOPs a weight and token, and in attention 2·T·C a token for the scores and again for
the weighted sum, T being the whole context (a causal kernel may skip half of that). Look-ups,
biases, layer norms, softmax and GELU are left out. The backward pass costs twice the forward
pass, since each product has two gradients.

Shapes: C = d = n_embd channels, L = n_layer, T = block_size, V = vocab_size.

Reference: Kaplan et al. 2020, section 2.1; Chowdhery et al. 2022, appendix B.
"""

from __future__ import annotations

from typing import Any

from gpt2lib.config import SIZES, GPTConfig, TrainConfig

BYTES = 4
"""Of a number in float32: weights, gradients and moments stay so in every precision."""


def parameter_parts(config: GPTConfig) -> dict[str, int]:
    """Count the parameters of each part of the model.

    Summed, for GPT-2's own shape, they are V·d + T·d + L·(12·d² + 13·d) + 2·d.
    """
    d, n_layer = config.n_embd, config.n_layer
    kv = 2 * config.kv_heads * config.head_size  # rows of c_attn for keys and values
    bias = int(config.bias)
    mlps = 0 if "mlp" in config.without else n_layer
    norms = 0 if "layer_norm" in config.without else n_layer + mlps + 1  # the last one, too
    return {
        "token embedding": config.vocab_size * d,
        "position embedding": config.block_size * d if config.position == "learned" else 0,
        "attention": n_layer * ((d + kv) * d + d * d + bias * (d + kv + d)),  # c_attn, c_proj
        "MLP": mlps * (4 * d * d + 4 * d * d + bias * (4 * d + d)),  # c_fc, c_proj
        "layer norms": norms * (d + bias * d),
        "output head": 0 if config.tie_weights else config.vocab_size * d,
    }


def count_parameters(config: GPTConfig) -> int:
    """Count all parameters, a tied one once: 124,439,808 for GPT-2 small."""
    return sum(parameter_parts(config).values())


def forward_flops(config: GPTConfig) -> dict[str, int]:
    """Count the FLOPs of one token in a forward pass over a full context, part by part.

    Through a window a token meets the keys of the window and the global ones, not the whole
    context. (The kernel computes a little more, at the edges of its blocks.)
    """
    d, n_layer = config.n_embd, config.n_layer
    keys = [
        min(config.block_size, config.block_size if w is None else w + len(config.global_tokens))
        for w in config.windows
    ]
    kv = 2 * config.kv_heads * config.head_size
    mlps = 0 if "mlp" in config.without else n_layer
    return {
        "attention, projections": n_layer * 2 * (2 * d + kv) * d,
        "attention, scores and sums": 2 * 2 * sum(keys) * d,
        "MLP": mlps * 2 * 8 * d * d,
        "output head": 2 * config.vocab_size * d,
    }


def training_flops(config: GPTConfig, gradient_checkpointing: bool = False) -> int:
    """Count the FLOPs of one token in an update: three forward passes.

    With gradient checkpointing the blocks run forward a second time, in the backward pass. PyTorch
    stops once it has what the backward pass needs, which without dropout is before the last
    product of each block, a `c_proj`.
    """
    parts = forward_flops(config)
    total = sum(parts.values())
    if not gradient_checkpointing:
        return 3 * total
    last = 0 if config.dropout else parts["MLP"] // 2 or 2 * config.n_layer * config.n_embd**2
    return 3 * total + total - parts["output head"] - last


def memory(config: GPTConfig) -> dict[str, int]:
    """Count the bytes that grow with the number of parameters alone; activations come on top.

    AdamW keeps two moments a parameter. A checkpoint is the weights and the moments.
    """
    weights = BYTES * count_parameters(config)
    return {
        "weights": weights,
        "gradients": weights,
        "optimizer": 2 * weights,
        "checkpoint": 3 * weights,
    }


def kv_cache_bytes(
    config: GPTConfig, tokens: int, batch: int = 1, bytes_per_number: int = 2
) -> int:
    """Count the bytes of a cache for `tokens` tokens in each of `batch` rows.

    Without a window that is 2·L·nkv·hs·T·B·bytes, the 2 for keys and values. A layer with a window
    of w and dilation d keeps (w - 1)·d + 1 tokens and the global ones, once those are read.

    Args:
        config: the shape of the model.
        tokens: T, the most tokens that a row will have.
        batch: B, rows.
        bytes_per_number: 2 in fp16 and bf16, 4 in float32.

    Reference: Shazeer 2019, section 3; Ainslie et al. 2023, section 2.2.
    """
    kept = 0  # tokens, summed over the layers
    global_tokens = len({place for place in config.global_tokens if place < tokens})
    for window, dilations in zip(config.windows, config.dilations, strict=True):
        reach = tokens if window is None else (window - 1) * max(dilations) + 1
        kept += min(tokens, reach + global_tokens)
    return 2 * kept * config.kv_heads * config.head_size * batch * bytes_per_number


def estimate(config: TrainConfig) -> dict[str, Any]:
    """Estimate a run.

    The size of the vocabulary is the tokenizer's, as in training. A character tokenizer knows it
    only once it has read the text, so the text is read then.

    Returns:
        Plain dictionaries, ready for JSON:
        `model`, the shape with its true vocabulary;
        `parameters`, `total` and `parts`;
        `flops_per_token`, `forward`, `training` and the `parts` of the forward pass;
        `bytes`, `weights`, `gradients`, `optimizer`, `checkpoint`, and `disk`, at most needed
        for the checkpoints that are kept and the one being written, and `kv_cache`, for
        generating one text of block_size tokens in float32;
        `run`, `steps`, `tokens_per_step`, `tokens` and `flops`.

    Raises:
        UserError: if `init_from`, the text or the tokenizer cannot be read.
    """
    model = resolved_model(config)
    flops = training_flops(model, config.gradient_checkpointing)
    per_step = config.batch_size * model.block_size
    tokens = config.steps * per_step
    of_parameters = memory(model)
    forward = forward_flops(model)
    return {
        "model": model.to_dict(),
        "parameters": {"total": count_parameters(model), "parts": parameter_parts(model)},
        "flops_per_token": {"forward": sum(forward.values()), "training": flops, "parts": forward},
        "bytes": {
            **of_parameters,
            "disk": (config.keep + 1) * of_parameters["checkpoint"],
            "kv_cache": kv_cache_bytes(model, model.block_size, bytes_per_number=BYTES),
        },
        "run": {
            "steps": config.steps,
            "tokens_per_step": per_step,
            "tokens": tokens,
            "flops": tokens * flops,
        },
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
    from gpt2lib.data import is_prepared, open_prepared

    data = config.data
    if is_prepared(data.source):
        return open_prepared(data.source).tokenizer.vocab_size
    if data.tokenizer in ("auto", "bpe"):
        return data.vocab_size
    if data.tokenizer == "char":
        from gpt2lib.corpora import load_corpus

        corpus = load_corpus(data)
        return len({c for part in (corpus.train(), corpus.val()) for text in part for c in text})
    from gpt2lib.tokenizer import load_tokenizer

    return load_tokenizer(data.tokenizer).vocab_size
