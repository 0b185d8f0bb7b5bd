"""GPT-2, bottom-up: MLP, Block, GPT.

Parameter names are GPT-2's, so that loading a published checkpoint is a transpose and nothing
else. Shapes: B batch, T time, C channels, V vocabulary.
"""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from gpt2lib.config import GPTConfig
from gpt2lib.model.attention import CausalSelfAttention
from gpt2lib.model.cache import KVCache, LayerCache
from gpt2lib.model.init import init_weights, tie
from gpt2lib.model.loss import linear_cross_entropy, next_token_loss
from gpt2lib.model.masks import DocumentMasks, Mask
from gpt2lib.model.positions import POSITIONS, Turn, places_in
from gpt2lib.utils.errors import UserError


class MLP(nn.Module):
    """Two linear layers with a GELU between them; works on each place alone.

    The GELU is the tanh approximation, as in GPT-2's own code, or exact, as the configuration says.

    Reference: Vaswani et al. 2017, section 3.3; Hendrycks and Gimpel 2016, section 2.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.approximate = "none" if config.gelu == "exact" else "tanh"
        self.dropout = config.dropout

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        x = F.gelu(self.c_fc(x), approximate=self.approximate)  # (B, T, 4·C)
        return F.dropout(self.c_proj(x), self.dropout, self.training)  # (B, T, C)


class Block(nn.Module):
    """Attention, then MLP; each reads a normalised copy of the stream and adds to the stream.

    Reference: Radford et al. 2019, section 2.3 (layer norm moved to the input of each part).
    """

    def __init__(self, config: GPTConfig, layer: int = 0) -> None:
        super().__init__()
        self.ln_1 = layer_norm(config)
        self.attn = CausalSelfAttention(config, layer)
        self.ln_2 = layer_norm(config)
        self.mlp = MLP(config)

    def forward(
        self,
        x: Tensor,
        turn: Turn,
        cache: LayerCache | None = None,
        mask: Mask | None = None,
    ) -> Tensor:
        """Map the residual stream, (B, T, C), to (B, T, C); the arguments are attention's."""
        x = x + self.attn(self.ln_1(x), turn, cache, mask)
        x = x + self.mlp(self.ln_2(x))
        return x


class PartialBlock(Block):
    """A block that lacks what the configuration's `without` names, to see what it is good for."""

    def __init__(self, config: GPTConfig, layer: int = 0) -> None:
        super().__init__(config, layer)
        self.residual = "residual" not in config.without
        if "mlp" in config.without:
            del self.ln_2, self.mlp

    def forward(
        self,
        x: Tensor,
        turn: Turn,
        cache: LayerCache | None = None,
        mask: Mask | None = None,
    ) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        y = self.attn(self.ln_1(x), turn, cache, mask)
        x = x + y if self.residual else y
        if hasattr(self, "mlp"):
            y = self.mlp(self.ln_2(x))
            x = x + y if self.residual else y
        return x


def layer_norm(config: GPTConfig) -> nn.Module:
    """Return a layer norm over the channels, or nothing where `without` says so."""
    if "layer_norm" in config.without:
        return nn.Identity()
    return nn.LayerNorm(config.n_embd, eps=1e-5, bias=config.bias)


class Transformer(nn.Module):
    """The trunk: embeddings, blocks and a last layer norm; tokens in, residual stream out.

    Attributes:
        gradient_checkpointing: whether training computes the activations of the blocks again in
            the backward pass instead of keeping them; for a number k, those of every k-th block.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        block = PartialBlock if config.without else Block
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = POSITIONS[config.position](config)
        self.h = nn.ModuleList(block(config, layer) for layer in range(config.n_layer))
        self.ln_f = layer_norm(config)
        self.dropout = config.dropout
        self.document_masks = DocumentMasks(config)
        self.gradient_checkpointing: bool | int = False

    def forward(
        self,
        idx: Tensor,
        cache: KVCache | None = None,
        documents: Tensor | None = None,
    ) -> Tensor:
        """Map token ids, (B, T), to the normalised residual stream, (B, T, C).

        With a cache, idx holds the tokens that follow those in it, and documents must be None.
        """
        T = idx.size(1)
        places = torch.arange(T, device=idx.device) if cache is None else cache.places(T)
        places = places if documents is None else places_in(documents)
        masks = self.document_masks(documents, places)
        caches = [None] * len(self.h) if cache is None else cache.layers
        x = self.wpe.embed(self.wte(idx), places)  # (B, T, C)
        x = F.dropout(x, self.dropout, self.training)
        turn = self.wpe.turn(places)
        every = int(self.gradient_checkpointing) if self.training else 0
        for i, layer in enumerate(zip(self.h, caches, masks, strict=True)):
            block, kept, mask = layer
            if every and i % every == 0:
                x = checkpoint(block, x, turn, kept, mask, use_reentrant=False)
            else:
                x = block(x, turn, kept, mask)
        if cache is not None:
            cache.advance()
        return self.ln_f(x)  # type: ignore[no-any-return]


class GPT(nn.Module):
    """The whole model: the trunk, and a head that scores every token of the vocabulary.

    With the default configuration it has GPT-2 small's 124,439,808 parameters.

    Attributes:
        cache_dtype: what keys and values are kept in while it writes; None: as they are computed.

    Reference: Radford et al. 2019, section 2.3.
    """

    cache_dtype: torch.dtype | None = None

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = Transformer(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        init_weights(self, config.n_layer)
        if config.tie_weights:
            tie(self.lm_head, self.transformer.wte)

    @overload
    def forward(
        self, idx: Tensor, targets: None = None, documents: Tensor | None = None
    ) -> Tensor: ...
    @overload
    def forward(
        self, idx: Tensor, targets: Tensor, documents: Tensor | None = None
    ) -> tuple[Tensor, Tensor]: ...
    def forward(
        self, idx: Tensor, targets: Tensor | None = None, documents: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Predict each next token.

        The loss is computed here and not by the caller, so that a wrapper for many processes
        sees every parameter used.

        Args:
            idx: (B, T), token ids, T at most block_size.
            targets: (B, T), the ids to predict, -1 where there is nothing to score.
            documents: (B, T), the number of the document that each token belongs to, growing
                along a row, as `data.document_ids` returns it. Every document is then read as if
                it stood alone: attention stays inside, and its places begin at 0. Attention holds
                the whole table, T by T, whatever the window.

        Returns:
            Without targets the logits, (B, T, V). With targets the summed loss in nats and the
            number of targets scored, two scalars.

        Raises:
            UserError: if T is above block_size.
        """
        n_tokens, limit = idx.size(1), self.config.block_size
        if n_tokens > limit:
            raise UserError(
                f"{n_tokens} tokens do not fit block_size {limit}; pass the last {limit} of them"
            )
        x = self.transformer(idx, documents=documents)  # (B, T, C)
        if targets is None:
            return self.lm_head(x)  # type: ignore[no-any-return]  # (B, T, V)
        if not _is_its_weight(self.lm_head):
            return next_token_loss(self.lm_head(x), targets)
        return linear_cross_entropy(x, self.lm_head.weight, targets)

    def num_parameters(self) -> int:
        """Count the parameters, a tied one once."""
        return sum(p.numel() for p in self.parameters())


def _is_its_weight(head: nn.Module) -> bool:
    """Return whether a head does nothing but what its weight says, so that it need not be called.

    A bias, a hook or a class that someone put in its place would not be heard.
    """
    hooks = (
        head._forward_pre_hooks,
        head._forward_hooks,
        head._backward_pre_hooks,
        head._backward_hooks,
    )
    return type(head) is nn.Linear and getattr(head, "bias", None) is None and not any(hooks)
