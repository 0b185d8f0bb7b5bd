"""The shape of a model, and which of its parameters train; what cannot work is refused.

Every field has a default and a line of documentation that `gpt2lib train --help all` shows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from gpt2lib.config.schema import Config, divisors, in_range, spread
from gpt2lib.utils.errors import UserError, nearest

IGNORE = -1
"""The target that the loss leaves out."""

SIZES: dict[str, dict[str, int]] = {
    "gpt2": {"n_layer": 12, "n_head": 12, "n_embd": 768},
    "gpt2-medium": {"n_layer": 24, "n_head": 16, "n_embd": 1024},
    "gpt2-large": {"n_layer": 36, "n_head": 20, "n_embd": 1280},
    "gpt2-xl": {"n_layer": 48, "n_head": 25, "n_embd": 1600},
}
"""The four published sizes; all have 50257 tokens and blocks of 1024."""


def _as_tuple(value: Any) -> Any:
    """Turn lists into tuples, inner ones too: masks made of them are compared and hashed."""
    return tuple(map(_as_tuple, value)) if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class GPTConfig(Config):
    """The shape of a model. The defaults are GPT-2 small.

    Attributes:
        vocab_size: number of token ids; in training it is taken from the tokenizer.
        block_size: longest context in tokens.
        n_layer: number of blocks.
        n_head: attention heads a block; must divide n_embd.
        n_embd: width of the residual stream.
        dropout: probability of dropping an activation, in training only (GPT-2 used 0.1).
        bias: whether linear layers and layer norms have biases, as GPT-2's do.
        tie_weights: whether the output head is the token embedding, as in GPT-2.
        position: learned (GPT-2), rope (queries and keys are rotated), or none.
        rope_base: how fast RoPE rotates; NTK extension raises it.
        rope_scale: what RoPE divides positions by; linear interpolation to s times the context
            sets it to s.
        n_kv_head: key and value heads, each shared by n_head / n_kv_head query heads; null gives
            every query head its own, 1 is multi-query attention.
        window: how many tokens a query sees, itself included; null sees all before it. A list is
            spread over the layers, lowest first.
        dilation: distance between the tokens that a window sees, one for all heads. Or lists: the
            outer is spread over the layers, each inner one over the heads of a layer.
        global_tokens: positions that every query sees, and that see all before them, whatever the
            window.
        without: parts left out, for comparisons: mlp, residual, layer_norm.
        gelu: tanh, the approximation that GPT-2 computes, or exact, as in nanoGPT.

    Reference: Radford et al. 2019, section 2.3 and table 2; Su et al. 2021 (position); Ainslie et
    al. 2023 (n_kv_head); Beltagy et al. 2020 (window, dilation, global_tokens).
    """

    vocab_size: int = 50257
    block_size: int = 1024
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.0
    bias: bool = True
    tie_weights: bool = True
    position: Literal["learned", "rope", "none"] = "learned"
    rope_base: float = 10000.0
    rope_scale: float = 1.0
    n_kv_head: int | None = None
    window: int | tuple[int, ...] | None = None
    dilation: int | tuple[tuple[int, ...], ...] = 1
    global_tokens: tuple[int, ...] = ()
    without: tuple[Literal["mlp", "residual", "layer_norm"], ...] = ()
    gelu: Literal["tanh", "exact"] = "tanh"

    def __post_init__(self) -> None:
        for name in ("window", "dilation", "global_tokens", "without"):
            object.__setattr__(self, name, _as_tuple(getattr(self, name)))
        in_range(self, "n_layer", least=0, most=2**12)
        in_range(self, "vocab_size", "block_size", "n_embd", least=1, most=2**24)
        in_range(self, "n_head", "n_kv_head", least=1)
        in_range(self, "dropout", least=0, below=1)
        if self.n_embd % self.n_head:
            fits = max(1, round(self.n_embd / self.n_head)) * self.n_head
            raise UserError(
                f"n_embd {self.n_embd} is not divisible by n_head {self.n_head}; {fits} would be"
            )
        if self.n_head % self.kv_heads:
            raise UserError(
                f"n_head {self.n_head} is not divisible by n_kv_head {self.n_kv_head}; "
                f"possible are {divisors(self.n_head)}"
            )
        self._check_rope()
        self._check_pattern()

    def _check_rope(self) -> None:
        for name, above in (("rope_base", 1.0), ("rope_scale", 0.0)):
            if not above < getattr(self, name) < math.inf:
                raise UserError(f"{name} must be above {above:g}, not {getattr(self, name)}")
        if self.position == "rope" and self.head_size % 2:
            raise UserError(
                f"position rope rotates pairs of channels, but n_embd {self.n_embd} / n_head "
                f"{self.n_head} gives heads of {self.head_size}; choose an even size"
            )

    def _check_pattern(self) -> None:
        if any(window < 1 for window in self.windows if window is not None):
            raise UserError(f"window must be at least 1 token, not {self.window}")
        for layer in self.dilations:
            if any(dilation < 1 for dilation in layer):
                raise UserError(f"dilation must be at least 1, not {self.dilation}")
        if self.window is None and self.dilation != 1:
            raise UserError(f"dilation {self.dilation} needs a window, and window is not set")
        if self.window is None and self.global_tokens:
            raise UserError(f"global_tokens {self.global_tokens} need a window; it is not set")
        for token in self.global_tokens:
            if not 0 <= token < self.block_size:
                raise UserError(
                    f"global token {token} is outside the block; block_size {self.block_size} has "
                    f"positions 0 to {self.block_size - 1}"
                )

    def unused(self) -> list[str]:
        """Return the fields that were set, but that a model of this shape does not read."""
        silent = [] if self.position == "rope" else ["rope_base", "rope_scale"]
        silent += ["gelu"] if "mlp" in self.without else []
        return self.not_default(*silent)

    @property
    def kv_heads(self) -> int:
        """Key and value heads: n_kv_head, or n_head where it is not set."""
        return self.n_head if self.n_kv_head is None else self.n_kv_head

    @property
    def windows(self) -> tuple[int | None, ...]:
        """The window of each layer, None where a query sees all before it."""
        pattern: tuple[int | None, ...]
        pattern = self.window if isinstance(self.window, tuple) else (self.window,)
        return spread("window", pattern, self.n_layer, "layers")

    @property
    def dilations(self) -> tuple[tuple[int, ...], ...]:
        """The dilation of each head, layer by layer."""
        pattern = self.dilation if isinstance(self.dilation, tuple) else ((self.dilation,),)
        layers = spread("dilation", pattern, self.n_layer, "layers")
        return tuple(spread("dilation", layer, self.n_head, "heads") for layer in layers)

    @property
    def head_size(self) -> int:
        """Channels of one attention head."""
        return self.n_embd // self.n_head

    @classmethod
    def preset(cls, name: str, **changes: Any) -> GPTConfig:
        """Return one of the four published sizes: gpt2, gpt2-medium, gpt2-large, gpt2-xl.

        Raises:
            UserError: for another name.
        """
        if name not in SIZES:
            raise UserError(
                f"unknown model size {name!r}; there are {', '.join(SIZES)}{nearest(name, SIZES)}"
            )
        return cls(**{**SIZES[name], **changes})


LORA_TARGETS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
"""The linear layers of a block."""


@dataclass(frozen=True)
class MethodConfig(Config):
    """Which parameters of the model of init_from are trained on.

    Attributes:
        name: full (all of them), last-k (the last blocks and the last norm), lora (low-rank
            matrices beside the linear layers, which stay as they are), head (the output head and
            the last norm), or norms (the gains and biases of all layer norms).
        k: how many blocks last-k trains.
        rank: of the matrices of lora.
        alpha: what lora adds is multiplied by alpha / rank.
        lora_dropout: probability of dropping what the matrices of lora read, in training only.
        targets: the linear layers of a block that get matrices of lora.

    Reference: Hu et al. 2021 (lora); Howard and Ruder 2018, section 3.2 (last blocks first); Zhao
    et al. 2023, "Tuning LayerNorm in Attention" (norms).
    """

    name: Literal["full", "last-k", "lora", "head", "norms"] = "full"
    k: int = 1
    rank: int = 8
    alpha: float = 16.0
    lora_dropout: float = 0.0
    targets: tuple[str, ...] = LORA_TARGETS

    def __post_init__(self) -> None:
        in_range(self, "k", "rank", least=1, most=2**16)
        in_range(self, "lora_dropout", least=0, below=1)
        if not 0 < self.alpha < math.inf:
            raise UserError(f"alpha must be above 0, not {self.alpha}")
        if not self.targets:
            raise UserError(f"targets is empty; name layers, such as {', '.join(LORA_TARGETS)}")

    def unused(self) -> list[str]:
        """Return the fields that were set, but that this method does not read."""
        silent = [] if self.name == "last-k" else ["k"]
        silent += [] if self.name == "lora" else ["rank", "alpha", "lora_dropout", "targets"]
        return self.not_default(*silent)
