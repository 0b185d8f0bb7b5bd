"""Answers to the exercises of notebook 04."""

import math

import torch
from torch.nn import functional as F

from wrong_answers import fails, right, wrong

# average-the-past


@wrong("average-the-past", "forgets-to-divide", says="divide by t + 1")
def running_sum(x):
    y = torch.zeros_like(x)
    total = torch.zeros_like(x[:, 0])
    for t in range(x.shape[1]):
        total = total + x[:, t]
        y[:, t] = total
    return y


@wrong("average-the-past", "divides-by-T")
def lower_triangle_over_T(x):
    T = x.shape[1]
    return (torch.tril(torch.ones(T, T)) / T) @ x


@wrong("average-the-past", "averages-everything", says="later ones")
def bag_of_words(x):
    T = x.shape[1]
    return (torch.ones(T, T) / T) @ x


@wrong("average-the-past", "without-itself", says="x[:, : t + 1]")
def slice_ends_too_early(x):
    y = torch.zeros_like(x)
    for b in range(x.shape[0]):
        for t in range(1, x.shape[1]):
            y[b, t] = sum(x[b, s] for s in range(t)) / t
    return y


@wrong("average-the-past", "averages-the-batch")
def wrong_dimension(x):
    return torch.stack([x[: b + 1].mean(dim=0) for b in range(x.shape[0])])


@wrong("average-the-past", "averages-the-future")
def upper_triangle(x):
    T = x.shape[1]
    weights = torch.triu(torch.ones(T, T))
    return (weights / weights.sum(1, keepdim=True)) @ x


@wrong("average-the-past", None, says="expected")
def counts_from_two(x):
    return x.cumsum(dim=1) / torch.arange(2, x.shape[1] + 2)[:, None]


@right("average-the-past")
def average_in_loops(x):
    y = torch.zeros_like(x)
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            y[b, t] = x[b, : t + 1].mean(dim=0)
    return y


@right("average-the-past")
def average_by_matrix(x):
    weights = torch.tril(torch.ones(x.shape[1], x.shape[1]))
    return (weights / weights.sum(dim=1, keepdim=True)) @ x


# causal-mask


@wrong("causal-mask", "sees-the-future", says="position 0 can see position 1")
def rows_and_columns_swapped(T):
    mask = torch.zeros(T, T, dtype=torch.bool)
    for query in range(T):
        for key in range(query, T):
            mask[query, key] = True
    return mask


@wrong("causal-mask", "blind-to-itself")
def strictly_before(T):
    i = torch.arange(T)
    return i[None, :] < i[:, None]


@wrong("causal-mask", "true-where-forbidden")
def hidden_is_true(T):
    i = torch.arange(T)
    return i[None, :] > i[:, None]


@wrong("causal-mask", "float-mask", says="booleans")
def ones_and_zeros(T):
    return torch.tril(torch.ones((T, T)))


@wrong("causal-mask", "hides-nothing", says="position 0 can see position 1")
def everyone(T):
    return torch.arange(T)[:, None] >= torch.zeros(T)[None, :]


@wrong("causal-mask", None, says="expected True")
def only_the_diagonal(T):
    return torch.eye(T, dtype=torch.bool)


@fails("causal-mask", says="in line 3 of misspelt")
def misspelt(T):
    return torch.trill(torch.ones(T, T))


@right("causal-mask")
def by_comparison(T):
    return torch.arange(T)[:, None] >= torch.arange(T)[None, :]


# attention-weights


def lower(T):
    return torch.tril(torch.ones(T, T)) == 1


@wrong("attention-weights", "mask-after-softmax", says="row 0 sums to 0.")
def multiplies_the_weights(q, k):
    weights = F.softmax(q @ k.transpose(0, 1) / math.sqrt(q.shape[1]), dim=1)
    return weights * lower(len(q))


@wrong("attention-weights", "no-scale")
def plain_products(q, k):
    scores = q @ k.T
    scores[~lower(len(q))] = float("-inf")
    return F.softmax(scores, dim=-1)


@wrong("attention-weights", "scaled-by-hs")
def divides_twice_as_far(q, k):
    scores = (q / q.shape[-1]) @ k.T
    scores[~lower(len(q))] = float("-inf")
    return F.softmax(scores, dim=-1)


@wrong("attention-weights", "softmax-over-queries", says="columns sum to 1")
def softmax_down_the_columns(q, k):
    scores = q @ k.T / q.shape[-1] ** 0.5
    return torch.softmax(scores.masked_fill(lower(len(q)) == 0, float("-inf")), dim=-2)


@wrong("attention-weights", "zero-for-minus-infinity", says="exp(0)")
def multiplies_the_scores(q, k):
    scores = q @ k.T / q.shape[-1] ** 0.5 * lower(len(q))
    return F.softmax(scores, dim=-1)


@wrong("attention-weights", "sees-the-future", says="looks ahead only")
def mask_transposed(q, k):
    scores = q @ k.T / q.shape[-1] ** 0.5
    scores[~lower(len(q)).T] = float("-inf")
    return F.softmax(scores, dim=-1)


@wrong("attention-weights", "no-mask", says="position 0 can see position")
def forgot_the_mask(q, k):
    return F.softmax(q @ k.T / q.shape[-1] ** 0.5, dim=-1)


@wrong("attention-weights", "blind-to-itself", says="nan")
def strict_mask(q, k):
    scores = q @ k.T / q.shape[-1] ** 0.5
    i = torch.arange(len(q))
    scores[i[None, :] >= i[:, None]] = float("-inf")
    return F.softmax(scores, dim=-1)


@wrong("attention-weights", "keys-ask-queries", says="q @ k.T")
def keys_ask_queries(q, k):
    scores = k @ q.T / q.shape[-1] ** 0.5
    scores[~lower(len(q))] = float("-inf")
    return F.softmax(scores, dim=-1)


@right("attention-weights")
def loops(q, k):
    T, hs = q.shape
    weights = torch.zeros(T, T)
    for i in range(T):
        shares = [math.exp(float(q[i] @ k[j]) / math.sqrt(hs)) for j in range(i + 1)]
        for j, share in enumerate(shares):
            weights[i, j] = share / sum(shares)
    return weights


@right("attention-weights")
def renormalised(q, k):
    weights = F.softmax(q @ k.T / q.shape[-1] ** 0.5, dim=-1) * lower(len(q))
    return weights / weights.sum(dim=-1, keepdim=True)


# split-heads


@wrong("split-heads", "view-without-transpose", says="cuts time")
def view_only(x, n_head):
    B, T, C = x.shape
    return x.view(B, n_head, T, C // n_head)


@wrong("split-heads", "forgot-to-swap", says="(B, T, nh, hs)")
def not_swapped(x, n_head):
    return torch.stack(x.chunk(n_head, dim=-1), dim=2)


@wrong("split-heads", "interleaved")
def every_nth_channel(x, n_head):
    return torch.stack([x[:, :, h::n_head] for h in range(n_head)], dim=1)


@wrong("split-heads", "time-last", says="(B, nh, hs, T)")
def swapped_too_far(x, n_head):
    B, T, C = x.shape
    return x.view(B, T, n_head, C // n_head).transpose(1, 3).transpose(1, 2)


@wrong("split-heads", None, says="expected shape")
def heads_in_front(x, n_head):
    return torch.stack(x.chunk(n_head, dim=-1), dim=0)


@right("split-heads")
def slices(x, n_head):
    hs = x.shape[-1] // n_head
    return torch.stack([x[..., h * hs : (h + 1) * hs] for h in range(n_head)], dim=1)


# self-attention


def heads_of(part, n_head):
    B, T, C = part.shape
    return part.view(B, T, n_head, C // n_head).transpose(1, 2)


def joined(y):
    B, n_head, T, hs = y.shape
    return y.transpose(1, 2).reshape(B, T, n_head * hs)


@wrong("self-attention", "split-order", says="q, k, v in this order")
def keys_first(x, W_attn, b_attn, W_proj, b_proj, n_head):
    k, q, v = (heads_of(part, n_head) for part in F.linear(x, W_attn, b_attn).chunk(3, dim=-1))
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return F.linear(joined(y), W_proj, b_proj)


@wrong("self-attention", "values-first")
def values_first(x, W_attn, b_attn, W_proj, b_proj, n_head):
    v, q, k = (heads_of(part, n_head) for part in F.linear(x, W_attn, b_attn).chunk(3, dim=-1))
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return F.linear(joined(y), W_proj, b_proj)


@wrong("self-attention", "forgot-c-proj", says="never mixed")
def no_projection(x, W_attn, b_attn, W_proj, b_proj, n_head):
    q, k, v = (heads_of(part, n_head) for part in F.linear(x, W_attn, b_attn).chunk(3, dim=-1))
    return joined(F.scaled_dot_product_attention(q, k, v, is_causal=True))


@wrong("self-attention", "joined-without-swap", says="transpose(1, 2) before")
def reshape_only(x, W_attn, b_attn, W_proj, b_proj, n_head):
    q, k, v = (heads_of(part, n_head) for part in F.linear(x, W_attn, b_attn).chunk(3, dim=-1))
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return F.linear(y.reshape(x.shape), W_proj, b_proj)


@wrong("self-attention", "scaled-by-the-width")
def scale_of_the_stream(x, W_attn, b_attn, W_proj, b_proj, n_head):
    q, k, v = (heads_of(part, n_head) for part in F.linear(x, W_attn, b_attn).chunk(3, dim=-1))
    scale = 1 / math.sqrt(x.shape[-1])
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
    return F.linear(joined(y), W_proj, b_proj)


@wrong("self-attention", "one-big-head", says="n_head is not used")
def single_head(x, W_attn, b_attn, W_proj, b_proj, n_head):
    q, k, v = F.linear(x, W_attn, b_attn).chunk(3, dim=-1)
    return F.linear(F.scaled_dot_product_attention(q, k, v, is_causal=True), W_proj, b_proj)


@wrong("self-attention", "no-mask")
def sees_everything(x, W_attn, b_attn, W_proj, b_proj, n_head):
    q, k, v = (heads_of(part, n_head) for part in F.linear(x, W_attn, b_attn).chunk(3, dim=-1))
    return F.linear(joined(F.scaled_dot_product_attention(q, k, v)), W_proj, b_proj)


@wrong("self-attention", None, says="expected")
def no_biases(x, W_attn, b_attn, W_proj, b_proj, n_head):
    q, k, v = (heads_of(part, n_head) for part in F.linear(x, W_attn).chunk(3, dim=-1))
    return F.linear(joined(F.scaled_dot_product_attention(q, k, v, is_causal=True)), W_proj)


@fails("self-attention", says="RuntimeError")
def weights_not_transposed(x, W_attn, b_attn, W_proj, b_proj, n_head):
    return x @ W_attn + b_attn


@right("self-attention")
def head_by_head(x, W_attn, b_attn, W_proj, b_proj, n_head):
    C = x.shape[-1]
    hs = C // n_head
    outputs = []
    for h in range(n_head):
        rows = torch.arange(h * hs, (h + 1) * hs)
        q, k, v = (x @ W_attn[rows + C * i].T + b_attn[rows + C * i] for i in range(3))
        scores = q @ k.transpose(-2, -1) / math.sqrt(hs)
        scores = scores.masked_fill(~lower(x.shape[1]), -math.inf)
        outputs.append(scores.softmax(dim=-1) @ v)
    return torch.cat(outputs, dim=-1) @ W_proj.T + b_proj


@wrong("attention-weights", "sees-the-future", says="position 0 can see position 1")
def future_only(q, k):
    scores = q @ k.T / q.shape[-1] ** 0.5
    return scores.masked_fill(torch.ones_like(scores).tril(-1) == 1, -torch.inf).softmax(-1)


@wrong("attention-weights", "scaled-after-the-softmax", says="the scores, before it")
def divides_the_weights(q, k):
    scores = q @ k.T
    scores[torch.ones_like(scores).triu(1) == 1] = -torch.inf
    return torch.softmax(scores, dim=-1) / math.sqrt(q.shape[1])


@wrong("average-the-past", "mean-of-nothing", says="0/0")
def empty_slice_first(x):
    out = torch.empty_like(x)
    for t in range(x.shape[1]):
        out[:, t] = x[:, :t].mean(dim=1)
    return out
