"""A copy of a model that only writes, with weights of fewer bytes.

To write one token a model reads every weight once and multiplies it once. Memory is slower than
multiplying, so the bytes of the weights decide the speed: 4 a weight in float32, 2 in bf16, and
1 in int8. On a CPU the weights are also laid out as the kernels want to read them, once instead
of at every product.

Shapes: B batch, T time, C channels, V vocabulary; N outputs and K inputs of a linear layer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2lib.generation.cpu_products import Packing, int8_linear, packing
from gpt2lib.model.gpt import GPT
from gpt2lib.model.kernels.chunked_loss import linear_in_pieces
from gpt2lib.utils.errors import UserError

Weights = Literal["fp32", "bf16", "int8"]

WIDEN_FROM = 20
"""Rows from which `Int8Linear` writes its weights out in bf16 for a product on a CPU.

The kernel for 8 bits takes as long for each further row as for the first; a product of bf16 does
not (`python benchmarks/decode.py --products` prints both)."""

KERNEL_READS = 32
"""Inputs that the kernel for 8 bits may read at a time. It does not look where a row ends: with
others left over it adds what lies behind, or ends the process. Such a layer is written out, too."""

IMITATED_UP_TO = 4
"""Rows up to which a CPU without bf16 multiplies in it all the same: memory is the slower part."""

BF16_FROM = 5_000_000
"""Parameters from which bf16 writes faster on a CPU; a smaller model's weights lie in its caches.

`python benchmarks/decode.py --sizes` prints the comparison; it came out alike on CPUs with bf16
instructions and without."""


def quantize(weight: Tensor, scale_dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, Tensor]:
    """Round a matrix to whole numbers of 8 bits, with one scale a row.

    Row n is scaled by s = max |w| / 127, rounded to bf16, and q = round(w / s). So the error of a
    weight is at most s / 2, which is 1/254 of the largest weight of its row (and up to 1/256 of
    that more, from the rounding of s). The error of an output is at most s / 2 · Σ |x|.

    Args:
        weight: (N, K), finite.
        scale_dtype: float32 or bf16, which `Int8Linear` needs.

    Returns:
        q, (N, K) int8 from -127 to 127, and s, (N, 1): q · s is near the weight.

    Raises:
        UserError: for a weight that is not a number, or infinite.

    Reference: Jacob et al. 2018, section 2.1, with the zero point at 0; Dettmers et al. 2022,
    section 2 (one scale a row).
    """
    weight = weight.detach().float()
    largest = weight.abs().amax(1, keepdim=True)  # (N, 1)
    if not bool(largest.isfinite().all()):
        raise UserError("the weights hold values that are no numbers (NaN) or infinite")
    exact = (largest / 127).clamp(min=torch.finfo(torch.bfloat16).tiny)  # a row of zeros, too
    # Where s is rounded down, by 1/256 at most, the largest is below 127.5 steps: 127 all the same.
    scale = exact.to(scale_dtype)
    return (weight / scale.float()).round().to(torch.int8), scale


class PackedLinear(nn.Module):
    """A linear layer whose weight lies in memory as the kernel for this CPU reads it.

    Args:
        weight: (N, K), in the dtype to compute in.
        bias: (N,), or None.
        layout: from `cpu_products.packing`.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, layout: Packing) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.bias: Tensor | None
        self.register_buffer("bias", bias)
        # No buffer: other devices and dtypes do not know this layout.
        self.layout, self.packed = layout, layout.pack(weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., K) to (..., N)."""
        return self.layout.linear(x, self.packed, self.bias)

    def __getstate__(self) -> dict[str, Any]:
        """Refuse to be copied or pickled: nobody may read the packed weight."""
        raise UserError(
            "weights laid out for this CPU cannot be copied or saved; copy or save the model that "
            "they were made from"
        )

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """Refuse, because a state without the weight would look whole."""
        self.__getstate__()

    def n_bytes(self) -> int:
        """Return the bytes of the weight."""
        return self.layout.n_bytes(self.packed)


class PlainLinear(nn.Module):
    """The same where no such kernel works: the weight as it is, in few bytes.

    A row or two wait for the weight to arrive from memory, in whatever dtype. More rows are
    multiplied in float32 on a CPU, because what it does not compute in bf16 it imitates slowly.

    Args:
        weight: (N, K), in the dtype to compute in.
        bias: (N,), or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.weight: Tensor
        self.bias: Tensor | None
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., K) to (..., N)."""
        if x.is_cpu and x.numel() > IMITATED_UP_TO * self.in_features:
            y = widened(x, self.weight)
            return y if self.bias is None else y + self.bias
        return F.linear(x, self.weight, self.bias)


def lowered_linear(weight: Tensor, bias: Tensor | None) -> PackedLinear | PlainLinear:
    """Return the faster of the two layers for this device and dtype."""
    layout = packing(weight.dtype) if weight.is_cpu else None
    return PlainLinear(weight, bias) if layout is None else PackedLinear(weight, bias, layout)


def widened(x: Tensor, weight: Tensor) -> Tensor:
    """Compute `F.linear(x, weight)` in float32, a piece of the weight at a time; dtype as x."""
    rows = linear_in_pieces(x.reshape(-1, x.size(-1)).float(), weight)
    return rows.to(x.dtype).view(*x.shape[:-1], -1)


class Int8Linear(nn.Module):
    """A linear layer with a weight of 8 bits; it computes in bf16, or whatever its input has.

    Attributes:
        q, scale: (N, K) and (N,), as `quantize` returns them.

    Args:
        q, scale: as `quantize` returns them.
        bias: (N,), or None.
    """

    def __init__(self, q: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = q.shape
        self.q: Tensor
        self.scale: Tensor
        self.bias: Tensor | None
        self.register_buffer("q", q)
        self.register_buffer("scale", scale.flatten())
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., K) to (..., N)."""
        rows = x.reshape(-1, self.in_features).contiguous()  # (rows, K)
        y = self.products(rows)  # (rows, N)
        y = y if self.bias is None else y + self.bias
        return y.view(*x.shape[:-1], self.out_features)

    def products(self, rows: Tensor) -> Tensor:
        """Map (rows, K) to (rows, N), without the bias."""
        if rows.is_cpu:
            fits = self.in_features % KERNEL_READS == 0 and rows.dtype == self.scale.dtype
            kernel = int8_linear() if fits and rows.size(0) < WIDEN_FROM else None
            if kernel is not None:
                return kernel(rows, self.q, self.scale)
            if packing(rows.dtype) is None:
                return widened(rows, self.q) * self.scale
        return F.linear(rows, self.q.to(rows.dtype)) * self.scale


class Int8Embedding(nn.Module):
    """An embedding that reads its rows from an `Int8Linear` head, as a tied one does.

    Args:
        head: (V, C), the output head.
    """

    def __init__(self, head: Int8Linear) -> None:
        super().__init__()
        self.q: Tensor
        self.scale: Tensor
        self.register_buffer("q", head.q)
        self.register_buffer("scale", head.scale)

    def forward(self, idx: Tensor) -> Tensor:
        """Map (B, T) to (B, T, C)."""
        return F.embedding(idx, self.q).to(self.scale.dtype) * self.scale[idx][..., None]


def fastest_weights(model: GPT) -> Literal["fp32", "bf16"]:
    """Return the weights with which a model writes fastest here without visible loss.

    On a CPU that is bf16 for all but small models, whether the CPU computes in bf16 or not: half
    the bytes arrive in about half the time. The answer depends on the kind of device and the
    model alone and is not timed, so that a seed repeats its text.
    """
    device = model.transformer.wte.weight.device.type
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    large = model.num_parameters() >= BF16_FROM
    return "bf16" if device == "cpu" and large else "fp32"


def slower_than_fp32(model: GPT, weights: Weights, many_rows: bool) -> str | None:
    """Say in one line why other weights than fp32 are the slower ones here; None if they are not.

    Args:
        model: the model that was trained.
        weights: fp32, bf16 or int8.
        many_rows: whether many tokens are read at a time, as for a loss, or one, as in writing.
    """
    on_cpu = model.transformer.wte.weight.is_cpu
    if weights == "fp32" or not on_cpu or packing(torch.bfloat16) is not None:
        return None
    if many_rows:
        return (
            f"this CPU does not compute in bf16, so products of many rows with {weights} weights "
            f"are made in float32: fp32 weights are faster here"
        )
    if model.num_parameters() < BF16_FROM:
        return (
            f"this CPU does not compute in bf16, and a model of {model.num_parameters():,} "
            f"parameters lies in its caches: fp32 weights are faster here than {weights}"
        )
    return None


class DecodingGPT(GPT):
    """A model that only writes; `for_decoding` makes it.

    Args:
        model: the model to copy.
        weights: fp32, bf16 or int8.
    """

    def __init__(self, model: GPT, weights: Weights) -> None:
        nn.Module.__init__(self)  # not GPT's: the parts are copies of the model's
        trunk, head = model.transformer, model.lm_head
        dtype = torch.float32 if weights == "fp32" else torch.bfloat16
        # A deep copy takes what stands here instead of copying it.
        instead: dict[int, Any] = {}
        for module in model.modules():
            if isinstance(module, nn.Linear):
                instead[id(module)] = _linear(module, weights, dtype)
            else:
                parameters = module.parameters(recurse=False)
                instead |= {
                    id(p): nn.Parameter(p.detach().to(dtype, copy=True)) for p in parameters
                }
        if weights == "int8" and head.weight is trunk.wte.weight:
            instead[id(trunk.wte)] = Int8Embedding(instead[id(head)])
        self.config, self.weights = model.config, weights
        self.transformer, self.lm_head = copy.deepcopy((trunk, head), instead)
        self.of_parameters = model.num_parameters()
        self.here = torch.zeros((), dtype=dtype, device=trunk.wte.weight.device)
        if self.here.is_cpu:
            self.cache_dtype = torch.float32  # one query in bf16 is the slower one on a CPU
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Refuse to train."""
        if mode:
            raise UserError(
                f"a model with {self.weights} weights for decoding does not train; train the "
                f"model that it was made from"
            )
        return super().train(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Refuse another device or dtype: the layout of the weights belongs to this one."""
        there = fn(self.here)
        if (there.device, there.dtype) != (self.here.device, self.here.dtype):
            raise UserError(
                f"a model for decoding stays on {self.here.device} with {self.weights} weights; "
                f"move the model that it was made from, and call for_decoding again"
            )
        return self

    def num_parameters(self) -> int:
        """Count the parameters of the model that it was made from."""
        return self.of_parameters

    def n_bytes(self) -> int:
        """Return the bytes of all weights, a shared one counted once."""
        held = {t.data_ptr(): t.nbytes for t in (*self.parameters(), *self.buffers())}
        packed = (m.n_bytes() for m in self.modules() if isinstance(m, PackedLinear))
        return sum(held.values()) + sum(packed)


def _linear(layer: nn.Linear, weights: Weights, dtype: torch.dtype) -> nn.Module:
    """Return what takes the place of a linear layer."""
    bias = None if layer.bias is None else layer.bias.detach().to(dtype, copy=True)
    if weights == "int8":
        return Int8Linear(*quantize(layer.weight), bias)
    return lowered_linear(layer.weight.detach().to(dtype, copy=True), bias)


def for_decoding(model: GPT, weights: Weights = "bf16") -> DecodingGPT:
    """Return a copy of a model that writes faster; `generate` and `stream` take it.

    fp32 changes nothing but the layout. bf16 keeps 8 significant bits of each weight and
    computes in bf16; keys and values are kept in float32 on a CPU. int8 rounds each weight of the
    linear layers, and of a tied embedding, as `quantize` does, and computes in bf16, too. It pays
    for a few texts at a time; on a CPU, 16 are faster in bf16.

    The `workshop` preset's model scores 2.36902 bits per byte on its held-out text in fp32, 2.36904
    in bf16 and 2.36907 in int8 (`gpt2lib evaluate runs/workshop --weights int8`). A much larger
    model may lose more: its outliers are larger.

    Args:
        model: the model, which stays as it is.
        weights: fp32, bf16 or int8.

    Raises:
        UserError: for other weights, for a model that is a copy of this kind already, and for
            int8 if a weight is not finite.
    """
    if weights not in get_args(Weights):
        raise UserError(f"weights must be {', '.join(get_args(Weights))}, not {weights!r}")
    if isinstance(model, DecodingGPT):
        raise UserError(
            f"the model has {model.weights} weights for decoding already; pass the model that it "
            f"was made from"
        )
    return DecodingGPT(model, weights)
