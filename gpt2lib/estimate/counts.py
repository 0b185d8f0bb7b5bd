"""Parameters, FLOPs and bytes of a shape, counted.

Conventions for FLOPs. A multiplication and an addition are two. Counted are the products of
matrices: 2 FLOPs a weight and token, and in attention 2·T·C a token for the scores and again for
the weighted sum, T being the whole context (a causal kernel may skip half of that). Look-ups,
biases, layer norms, softmax and GELU are left out. The backward pass costs twice the forward
pass, since each product has two gradients.

Shapes: C = d = n_embd channels, L = n_layer, T = block_size, V = vocab_size.

Reference: Kaplan et al. 2020, section 2.1; Chowdhery et al. 2022, appendix B.
"""

from __future__ import annotations

from gpt2lib.config import GPTConfig, MethodConfig

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


def count_trained(config: GPTConfig, method: MethodConfig) -> int:
    """Count the parameters that a method of fine-tuning trains."""
    d, parts = config.n_embd, parameter_parts(config)
    last_norm = (d + config.bias * d) * ("layer_norm" not in config.without)
    block = (parts["attention"] + parts["MLP"] + parts["layer norms"] - last_norm) // config.n_layer
    kv = 2 * config.kv_heads * config.head_size
    widths = {  # of what a layer reads and makes, together
        "attn.c_attn": d + d + kv,
        "attn.c_proj": 2 * d,
        "mlp.c_fc": 5 * d,
        "mlp.c_proj": 5 * d,
    }
    return {
        "full": sum(parts.values()),
        "last-k": method.k * block + last_norm,
        "head": config.vocab_size * d + last_norm,
        "norms": parts["layer norms"],
        "lora": config.n_layer * method.rank * sum(widths.get(t, 0) for t in set(method.targets)),
    }[method.name]


def forward_flops(config: GPTConfig) -> dict[str, int]:
    """Count the FLOPs of one token in a forward pass over a full context, part by part.

    Through a window a token meets the keys of the window and the global ones, not the whole
    context. (The kernel computes a little more, at the edges of its blocks.)
    """
    d, n_layer = config.n_embd, config.n_layer
    keys = [_keys(config, layer) for layer in range(n_layer)]
    kv = 2 * config.kv_heads * config.head_size
    mlps = 0 if "mlp" in config.without else n_layer
    return {
        "attention, projections": n_layer * 2 * (2 * d + kv) * d,
        "attention, scores and sums": 2 * 2 * sum(keys) * d,
        "MLP": mlps * 2 * 8 * d * d,
        "output head": 2 * config.vocab_size * d,
    }


def _keys(config: GPTConfig, layer: int) -> int:
    """Return how many keys a query meets in this layer."""
    window, T = config.windows[layer], config.block_size
    return T if window is None else min(T, window + len(config.global_tokens))


def training_flops(config: GPTConfig, gradient_checkpointing: bool | int = False) -> int:
    """Count the FLOPs of one token in an update: three forward passes.

    With gradient checkpointing every k-th block runs forward a second time, in the backward pass.
    PyTorch stops once it has what the backward pass needs, which without dropout is before the
    last product of the block, a `c_proj`.

    Args:
        config: the shape of the model.
        gradient_checkpointing: k; True is 1, every block, and False none.
    """
    total = sum(forward_flops(config).values())
    every = range(0, config.n_layer, int(gradient_checkpointing)) if gradient_checkpointing else ()
    again = sum(_block_flops(config, layer) for layer in every)
    if not config.dropout:
        last = 2 * config.n_embd**2 * (1 if "mlp" in config.without else 4)
        again -= len(every) * last
    return 3 * total + again


def _block_flops(config: GPTConfig, layer: int) -> int:
    """Count the FLOPs of one token in the forward pass of one block."""
    parts = forward_flops(config)
    same = parts["attention, projections"] + parts["MLP"]  # in every layer
    return same // config.n_layer + 2 * 2 * _keys(config, layer) * config.n_embd


def memory(
    config: GPTConfig, muon: bool = False, method: MethodConfig | None = None
) -> dict[str, int]:
    """Count the bytes that grow with the number of parameters alone; activations come on top.

    AdamW keeps two moments a parameter, Muon one. A checkpoint is the weights and the moments.
    Where only a part of the parameters trains, the others have neither gradients nor moments.

    Args:
        config: the shape of the model.
        muon: whether Muon steps the matrices of the blocks.
        method: of fine-tuning; None is full.
    """
    if method is not None and method.name != "full":
        return _memory_of_a_part(config, method)
    parts = parameter_parts(config.replace(bias=False))
    by_muon = parts["attention"] + parts["MLP"] if muon else 0  # matrices of the blocks
    weights = BYTES * count_parameters(config)
    optimizer = 2 * weights - BYTES * by_muon
    return {
        "weights": weights,
        "gradients": weights,
        "optimizer": optimizer,
        "checkpoint": weights + optimizer,
    }


def _memory_of_a_part(config: GPTConfig, method: MethodConfig) -> dict[str, int]:
    """Count the same where some parameters are frozen."""
    trained, weights = BYTES * count_trained(config, method), BYTES * count_parameters(config)
    own = trained if method.name == "lora" else 0  # matrices beside the weights
    return {
        "weights": weights + own,
        "gradients": trained,
        "optimizer": 2 * trained,
        "checkpoint": (own or weights) + 2 * trained,
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
