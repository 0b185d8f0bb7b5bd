"""GPT-2, bottom-up: MLP, Block, Transformer, GPT.

Parameter names are GPT-2's, so that loading a published checkpoint is a transpose and nothing
else. Shapes: B batch, T time, C channels, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from gpt2lib.config import GPTConfig
from gpt2lib.model.attention import CausalSelfAttention
from gpt2lib.model.cache import KVCache, LayerCache
from gpt2lib.model.init import init_weights, tie
from gpt2lib.model.kernels.chunked_loss import LMHead, check_ids, head_loss
from gpt2lib.model.masks import Mask, document_masks
from gpt2lib.model.positions import POSITIONS, Rotate, positions_in
from gpt2lib.utils.errors import UserError


class MLP(nn.Module):
    """Two linear layers with a GELU between them; works on each position alone.

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
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attn = CausalSelfAttention(config, layer)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)

    def forward(
        self,
        x: Tensor,
        rotate: Rotate,
        cache: LayerCache | None = None,
        mask: Mask | Tensor | None = None,
    ) -> Tensor:
        """Map the residual stream, (B, T, C), to (B, T, C); the arguments are attention's."""
        x = x + self.attn(self.ln_1(x), rotate, cache, mask)
        x = x + self.mlp(self.ln_2(x))
        return x


class Transformer(nn.Module):
    """The trunk: embeddings, blocks and a last layer norm; tokens in, residual stream out.

    Attributes:
        gradient_checkpointing: whether training computes the activations of the blocks again in
            the backward pass instead of keeping them; for a number k, those of every k-th block.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = POSITIONS[config.position](config)
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.n_head, self.dropout = config.n_head, config.dropout
        self.gradient_checkpointing: bool | int = False
        if config.without:
            from gpt2lib.model.ablation import leave_out

            leave_out(self, config.without)

    def forward(
        self, idx: Tensor, cache: KVCache | None = None, documents: Tensor | None = None
    ) -> Tensor:
        """Map token ids, (B, T), to the normalised residual stream, (B, T, C).

        With a cache, idx holds the tokens that follow those in it, and documents must be None.
        """
        n_layer, T = len(self.h), idx.size(1)
        positions = torch.arange(T, device=idx.device) if cache is None else cache.positions(T)
        masks: list[Tensor] | list[None] = [None] * n_layer  # each layer's own
        if documents is not None:
            positions = positions_in(documents)  # (B, T): each document from 0
            own: list[Mask] = [block.attn.mask for block in self.h]  # type: ignore[union-attr, misc]
            masks = document_masks(own, documents, positions, self.n_head)
        caches = [None] * n_layer if cache is None else cache.layers
        x = self.wpe.embed(self.wte(idx), positions)  # (B, T, C)
        x = F.dropout(x, self.dropout, self.training)
        rotate = self.wpe.rotation(positions)  # once, for all layers
        every = int(self.gradient_checkpointing) if self.training else 0
        for i, arguments in enumerate(zip(caches, masks, strict=True)):
            if every and i % every == 0:
                x = checkpoint(self.h[i], x, rotate, *arguments, use_reentrant=False)
            else:
                x = self.h[i](x, rotate, *arguments)
        if cache is not None:
            cache.advance()
        return self.ln_f(x)  # type: ignore[no-any-return]


class GPT(nn.Module):
    """The whole model: the trunk, and a head that scores every token of the vocabulary.

    With the default configuration it has GPT-2 small's 124,439,808 parameters.

    Attributes:
        cache_dtype: what keys and values are kept in while it generates; None: as computed.

    Reference: Radford et al. 2019, section 2.3.
    """

    cache_dtype: torch.dtype | None = None

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = Transformer(config)
        self.lm_head = LMHead(config.n_embd, config.vocab_size, bias=False)
        init_weights(self, config.n_layer)
        if config.tie_weights:
            tie(self.lm_head, self.transformer.wte)

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
                it stood alone: attention stays inside, and its positions begin at 0. The mask is
                materialised, T by T, whatever the window.

        Returns:
            Without targets the logits, (B, T, V). With targets the summed loss in nats and the
            number of targets scored, two scalars.

        Raises:
            UserError: if T is above block_size, or (on a CPU) an id is not in the vocabulary.
        """
        n_tokens, limit = idx.size(1), self.config.block_size
        if n_tokens > limit:
            raise UserError(
                f"{n_tokens} tokens do not fit block_size {limit}; pass the last {limit} of them"
            )
        if not torch.compiler.is_compiling():
            check_ids(idx, targets, self.config.vocab_size)
        x = self.transformer(idx, documents=documents)  # (B, T, C)
        if targets is None:
            return self.lm_head(x)  # type: ignore[no-any-return]  # (B, T, V)
        return head_loss(self.lm_head, x, targets)  # never all B·T·V logits at once

    def num_parameters(self) -> int:
        """Count the parameters, a tied one once."""
        return sum(p.numel() for p in self.parameters())
