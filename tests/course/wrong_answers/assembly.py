"""Answers to the exercises of notebook 06."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from wrong_answers import fails, right, wrong

# ── layer-norm ──────────────────────────────────────────────────────────────────────────────────


@wrong("layer-norm", "over-time", says="dim=1")
def normalises_each_channel_over_the_text(x, gain, bias):
    mean = x.mean(dim=1, keepdim=True)
    var = ((x - mean) ** 2).mean(dim=1, keepdim=True)
    return (x - mean) * torch.rsqrt(var + 1e-5) * gain + bias


@wrong("layer-norm", "over-everything")
def forgot_the_dim(x, gain, bias):
    return (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt() * gain + bias


@wrong("layer-norm", "divides-by-c-minus-1", says="unbiased=False")
def with_the_default_of_var(x, gain, bias):
    mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True)
    return gain * (x - mean) / torch.sqrt(var + 1e-5) + bias


@wrong("layer-norm", "divides-by-the-variance")
def forgot_the_root(x, gain, bias):
    mean = x.mean(-1, keepdim=True)
    var = (x * x).mean(-1, keepdim=True) - mean**2
    return (x - mean) / (var + 1e-5) * gain + bias


@wrong("layer-norm", "no-eps")
def without_eps(x, gain, bias):
    centred = x - x.mean(-1, keepdim=True)
    length = centred.norm(dim=-1, keepdim=True)
    return centred / length * math.sqrt(x.size(-1)) * gain + bias


@wrong("layer-norm", "eps-outside-the-root", says="under the root")
def eps_added_to_the_deviation(x, gain, bias):
    mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True, correction=0)
    return (x - mean) / (std + 1e-5) * gain + bias


@wrong("layer-norm", "not-centred", says="RMSNorm")
def rms_norm(x, gain, bias):
    return x * (x.pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt() * gain + bias


@wrong("layer-norm", "no-gain-and-bias")
def normalises_only(x, gain, bias):
    return F.layer_norm(x, x.shape[-1:])


@wrong("layer-norm", "bias-before-gain")
def gain_of_everything(x, gain, bias):
    return gain * (F.layer_norm(x, x.shape[-1:]) + bias)


@wrong("layer-norm", None, says="expected")
def gain_without_bias(x, gain, bias):
    return F.layer_norm(x, x.shape[-1:], gain)


@fails("layer-norm", says="RuntimeError")
def without_keepdim(x, gain, bias):
    return (x - x.mean(-1)) / (x.var(-1) + 1e-5).sqrt() * gain + bias


@right("layer-norm")
def place_by_place(x, gain, bias):
    out = torch.empty_like(x)
    for b in range(x.size(0)):
        for t in range(x.size(1)):
            row = x[b, t]
            mean = row.sum() / len(row)
            var = ((row - mean) ** 2).sum() / len(row)
            out[b, t] = (row - mean) / (var + 1e-5) ** 0.5 * gain + bias
    return out


# ── mlp ─────────────────────────────────────────────────────────────────────────────────────────


def tanh_gelu(u):
    return 0.5 * u * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))


@wrong("mlp", "exact-gelu", says="tanh")
def with_the_default_gelu(x, W_fc, b_fc, W_proj, b_proj):
    return F.linear(F.gelu(F.linear(x, W_fc, b_fc)), W_proj, b_proj)


@wrong("mlp", "relu")
def with_max(x, W_fc, b_fc, W_proj, b_proj):
    return (x @ W_fc.T + b_fc).clamp(min=0) @ W_proj.T + b_proj


@wrong("mlp", "no-activation", says="one matrix")
def two_linear_layers(x, W_fc, b_fc, W_proj, b_proj):
    return F.linear(F.linear(x, W_fc, b_fc), W_proj, b_proj)


@wrong("mlp", "gelu-at-the-end")
def bends_last(x, W_fc, b_fc, W_proj, b_proj):
    return tanh_gelu((x @ W_fc.T + b_fc) @ W_proj.T + b_proj)


@wrong("mlp", "gelu-twice")
def bends_after_each(x, W_fc, b_fc, W_proj, b_proj):
    for W, b in ((W_fc, b_fc), (W_proj, b_proj)):
        x = tanh_gelu(x @ W.T + b)
    return x


@wrong("mlp", "forgot-b-fc")
def one_bias_only(x, W_fc, b_fc, W_proj, b_proj):
    return tanh_gelu(x @ W_fc.T) @ W_proj.T + b_proj


@wrong("mlp", "forgot-b-proj")
def the_other_bias_only(x, W_fc, b_fc, W_proj, b_proj):
    return tanh_gelu(x @ W_fc.T + b_fc) @ W_proj.T


@wrong("mlp", "no-biases")
def matrices_only(x, W_fc, b_fc, W_proj, b_proj):
    return F.gelu(x @ W_fc.T, approximate="tanh") @ W_proj.T


@wrong("mlp", None, says="expected")
def a_sigmoid_gelu(x, W_fc, b_fc, W_proj, b_proj):
    h = x @ W_fc.T + b_fc
    return (h * torch.sigmoid(1.702 * h)) @ W_proj.T + b_proj


@fails("mlp", says="in line 3 of")
def forgot_to_transpose(x, W_fc, b_fc, W_proj, b_proj):
    return tanh_gelu(x @ W_fc + b_fc) @ W_proj + b_proj


@right("mlp")
def written_out(x, W_fc, b_fc, W_proj, b_proj):
    return torch.einsum("btk,ck->btc", tanh_gelu(torch.einsum("btc,kc->btk", x, W_fc) + b_fc),
                        W_proj) + b_proj  # fmt: skip


# ── block ───────────────────────────────────────────────────────────────────────────────────────


@wrong("block", "changes-the-stream-in-place", says="x = x +")
def with_plus_equals(x, ln_1, attn, ln_2, mlp):
    x += attn(ln_1(x))
    x += mlp(ln_2(x))
    return x


@wrong("block", "post-norm", says="first Transformer")
def as_in_2017(x, ln_1, attn, ln_2, mlp):
    a = attn(x)
    y = ln_1(a + x)
    return ln_2(mlp(y) + y)


@wrong("block", "stream-is-normalised")
def norm_replaces_the_stream(x, ln_1, attn, ln_2, mlp):
    normed = ln_1(x)
    x = normed + attn(normed)
    normed = ln_2(x)
    return normed + mlp(normed)


@wrong("block", "no-residual")
def one_after_the_other(x, ln_1, attn, ln_2, mlp):
    for part in (ln_1, attn, ln_2, mlp):
        x = part(x)
    return x


@wrong("block", "second-residual-missing")
def mlp_replaces(x, ln_1, attn, ln_2, mlp):
    x = x + attn(ln_1(x))
    x = mlp(ln_2(x))
    return x


@wrong("block", "in-parallel")
def both_read_the_same(x, ln_1, attn, ln_2, mlp):
    return sum([attn(ln_1(x)), mlp(ln_2(x))], x)


@wrong("block", "mlp-first")
def swapped(x, ln_1, attn, ln_2, mlp):
    for norm, part in ((ln_2, mlp), (ln_1, attn)):
        x = x + part(norm(x))
    return x


@wrong("block", "one-norm-for-both")
def copy_and_paste(x, ln_1, attn, ln_2, mlp):
    x = x + attn(ln_1(x))
    x = x + mlp(ln_1(x))
    return x


@wrong("block", "no-norms")
def without_norms(x, ln_1, attn, ln_2, mlp):
    for part in (attn, mlp):
        x = x + part(x)
    return x


@fails("block", says="not callable")
def multiplies_them(x, ln_1, attn, ln_2, mlp):
    return x(ln_1)


@right("block")
def in_a_loop(x, ln_1, attn, ln_2, mlp):
    for norm, part in ((ln_1, attn), (ln_2, mlp)):
        x = x + part(norm(x))
    return x


# ── count-parameters ────────────────────────────────────────────────────────────────────────────


def linear(a, b, bias=True):
    return a * b + bias * b


def block(d):
    layers = linear(d, 3 * d) + linear(d, d) + linear(d, 4 * d) + linear(4 * d, d)
    return layers + 2 * (2 * d)


@wrong("count-parameters", "untied-head", says="V·d above")
def counts_the_head(V, T, L, d):
    return V * d + T * d + L * block(d) + 2 * d + linear(d, V, bias=False)


@wrong("count-parameters", "no-biases")
def linear_layers_without_bias(V, T, L, d):
    weights = linear(d, 3 * d, False) + linear(d, d, False) + 2 * linear(d, 4 * d, False)
    return (V + T) * d + L * (weights + 4 * d) + 2 * d


@wrong("count-parameters", "no-norms-in-the-blocks")
def only_the_last_norm(V, T, L, d):
    return (V + T) * d + L * (block(d) - 4 * d) + 2 * d


@wrong("count-parameters", "weights-only")
def matrices(V, T, L, d):
    return (V + T + 12 * L * d) * d


@wrong("count-parameters", "forgot-the-last-norm", says="ln_f")
def ends_with_the_blocks(V, T, L, d):
    return (V + T) * d + L * block(d)


@wrong("count-parameters", "forgot-the-positions")
def tokens_only(V, T, L, d):
    return V * d + L * block(d) + 2 * d


@wrong("count-parameters", "norms-without-bias")
def gains_only(V, T, L, d):
    return (V + T) * d + L * (block(d) - 2 * d) + d


@wrong("count-parameters", "attention-without-c-proj")
def c_attn_only(V, T, L, d):
    return (V + T) * d + L * (block(d) - linear(d, d)) + 2 * d


@wrong("count-parameters", None, says="expected 124439808")
def kaplans_n(V, T, L, d):
    return 12 * L * d**2


@right("count-parameters")
def with_modules(V, T, L, d):
    with torch.device("meta"):
        parts = [nn.Embedding(V, d), nn.Embedding(T, d), nn.LayerNorm(d)]
        for _ in range(L):
            parts += [nn.LayerNorm(d), nn.Linear(d, 3 * d), nn.Linear(d, d)]
            parts += [nn.LayerNorm(d), nn.Linear(d, 4 * d), nn.Linear(4 * d, d)]
    return sum(p.numel() for part in parts for p in part.parameters())


@wrong("layer-norm", "std-plus-eps", says="two things")
def std_and_eps(x, gain, bias):
    return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-5) * gain + bias


@wrong("block", "first-residual-missing", says="attention adds, too")
def attention_replaces(x, ln_1, attn, ln_2, mlp):
    x = attn(ln_1(x))
    return x + mlp(ln_2(x))


@wrong("count-parameters", "no-norms", says="after the last")
def matrices_and_biases(V, T, L, d):
    block = (3 * d * d + 3 * d) + (d * d + d) + (4 * d * d + 4 * d) + (4 * d * d + d)
    return V * d + T * d + L * block
