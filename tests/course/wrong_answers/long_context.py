"""Answers to the exercises of notebook 13."""

import math

import torch
from torch.nn import functional as F

from wrong_answers import fails, right, wrong

# shared-heads


def causal(T):
    return torch.tril(torch.ones(T, T, dtype=torch.bool))


def one_head(q, k, v):
    scores = (q @ k.T / math.sqrt(q.shape[1])).masked_fill(~causal(len(q)), -math.inf)
    return scores.softmax(dim=1) @ v


@wrong("shared-heads", "interleaved", says="h // group")
def repeats_the_whole_row(q, k, v):
    times = len(q) // len(k)
    return F.scaled_dot_product_attention(
        q, k.repeat(times, 1, 1), v.repeat(times, 1, 1), is_causal=True
    )


@wrong("shared-heads", "one-head-for-all", says="multi-query")
def broadcast_the_first(q, k, v):
    return torch.stack([one_head(head, k[0], v[0]) for head in q])


@wrong("shared-heads", "averages-heads", says="once")
def pooled_while_attending(q, k, v):
    return torch.stack([one_head(head, k.mean(dim=0), v.mean(dim=0)) for head in q])


@wrong("shared-heads", "backwards")
def counts_down(q, k, v):
    k, v = k.flip(0), v.flip(0)
    group = len(q) // len(k)
    return torch.stack([one_head(q[h], k[h // group], v[h // group]) for h in range(len(q))])


@wrong("shared-heads", "no-mask", says="causal mask")
def everyone_sees_everyone(q, k, v):
    group = len(q) // len(k)
    return F.scaled_dot_product_attention(
        q, k.repeat_interleave(group, dim=0), v.repeat_interleave(group, dim=0)
    )


@wrong("shared-heads", "no-scale", says="√hs")
def plain_products(q, k, v):
    group = len(q) // len(k)
    k, v = k.repeat_interleave(group, dim=0), v.repeat_interleave(group, dim=0)
    scores = q @ k.transpose(1, 2)
    scores[:, ~causal(q.shape[1])] = -math.inf
    return scores.softmax(dim=-1) @ v


@wrong("shared-heads", None, says="expected shape")
def answers_by_key_head(q, k, v):
    return torch.stack([one_head(q[h], k[h], v[h]) for h in range(len(k))])


@right("shared-heads")
def repeat_interleave(q, k, v):
    group = len(q) // len(k)
    k, v = k.repeat_interleave(group, dim=0), v.repeat_interleave(group, dim=0)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


@right("shared-heads")
def head_after_head(q, k, v):
    outputs = []
    for kv in range(len(k)):
        for head in q.chunk(len(k))[kv]:
            outputs.append(one_head(head, k[kv], v[kv]))
    return torch.stack(outputs)


# pool-heads


@wrong("pool-heads", "mixes-channels", says="channels of one head")
def neighbouring_rows(weight, n_kv_head, head_size):
    factor = len(weight) // (n_kv_head * head_size)
    rows = range(0, len(weight), factor)
    return torch.stack([weight[i : i + factor].mean(dim=0) for i in rows])


@wrong("pool-heads", "every-nth-head", says="neighbours")
def strided_heads(weight, n_kv_head, head_size):
    heads = weight.split(head_size)
    return torch.cat([torch.stack(heads[g::n_kv_head]).mean(dim=0) for g in range(n_kv_head)])


@wrong("pool-heads", "sums", says="longer")
def added_up(weight, n_kv_head, head_size):
    heads = weight.view(-1, head_size, weight.shape[1])
    return torch.cat([sum(group) for group in heads.chunk(n_kv_head)])


@wrong("pool-heads", "first-head", says="mean is asked for")
def keeps_one(weight, n_kv_head, head_size):
    heads = weight.split(head_size)
    return torch.cat(heads[:: len(heads) // n_kv_head])


@wrong("pool-heads", "group-for-number", says="how many heads are left")
def groups_of_that_size(weight, n_kv_head, head_size):
    heads = weight.view(-1, head_size, weight.shape[1])
    return torch.cat([group.mean(dim=0) for group in heads.split(n_kv_head)])


@wrong("pool-heads", "pools-the-inputs", says="rows")
def columns_for_rows(weight, n_kv_head, head_size):
    heads = weight.split(head_size, dim=1)
    each = len(heads) // n_kv_head
    groups = [heads[i : i + each] for i in range(0, len(heads), each)]
    return torch.cat([sum(group) / each for group in groups], dim=1)


@wrong("pool-heads", None, says="expected shape")
def one_mean_for_all(weight, n_kv_head, head_size):
    return weight.view(-1, head_size, weight.shape[1]).mean(dim=0)


@right("pool-heads")
def loop_over_groups(weight, n_kv_head, head_size):
    heads = weight.split(head_size)
    each = len(heads) // n_kv_head
    made = []
    for g in range(n_kv_head):
        total = torch.zeros_like(heads[0])
        for head in heads[g * each : (g + 1) * each]:
            total += head / each
        made.append(total)
    return torch.cat(made)


# window-mask


@wrong("window-mask", "one-too-many", says="window + 1 keys")
def window_keys_before_it(T, window):
    mask = torch.zeros(T, T, dtype=torch.bool)
    for i in range(T):
        mask[i, max(0, i - window) : i + 1] = True
    return mask


@wrong("window-mask", "two-sided", says="ahead of it")
def as_in_the_encoder(T, window):
    mask = torch.zeros(T, T, dtype=torch.bool)
    for i in range(T):
        mask[i, max(0, i - window + 1) : i + window] = True
    return mask


@wrong("window-mask", "forgets-itself", says="cannot see place 0")
def strictly_before(T, window):
    mask = torch.zeros(T, T, dtype=torch.bool)
    for i in range(T):
        mask[i, max(0, i - window) : i] = True
    return mask


@wrong("window-mask", "window-unused")
def only_causal(T, window):
    return causal(T)


@wrong("window-mask", "looks-ahead", says="wrong side")
def upper_band(T, window):
    return torch.triu(torch.ones(T, T)).bool() & ~torch.triu(torch.ones(T, T), window).bool()


@wrong("window-mask", "blocks-for-windows", says="slides")
def block_by_block(T, window):
    mask = torch.zeros(T, T, dtype=torch.bool)
    for start in range(0, T, window):
        for i in range(start, min(start + window, T)):
            mask[i, start : i + 1] = True
    return mask


@wrong("window-mask", "float-mask", says="booleans")
def ones_in_a_band(T, window):
    return torch.tril(torch.ones(T, T)) - torch.tril(torch.ones(T, T), -window)


@wrong("window-mask", None, says="expected")
def half_on_each_side(T, window):
    i = torch.arange(T)
    return (i[:, None] - i[None, :]).abs() <= window // 2


@right("window-mask")
def band(T, window):
    ones = torch.ones(T, T, dtype=torch.bool)
    return ones.tril() & ones.triu(1 - window)


# global-mask


def parts(T, window, places):
    i = torch.arange(T)
    near = (i[:, None] - i[None, :]).abs() < window
    chosen = torch.zeros(T, dtype=torch.bool)
    chosen[list(places)] = True
    return near, chosen


@wrong("global-mask", "leaks-the-future", says="causal & near | global")
def precedence(T, window, places):
    near, chosen = parts(T, window, places)
    return causal(T) & near | chosen[:, None] | chosen[None, :]


@wrong("global-mask", "global-looks-ahead", says="answers included")
def rows_set_to_true(T, window, places):
    near, chosen = parts(T, window, places)
    mask = causal(T) & (near | chosen[None, :])
    for place in places:
        mask[place, :] = True
    return mask


@wrong("global-mask", "seen-before-it-was-read", says="not by those before it")
def columns_set_to_true(T, window, places):
    near, chosen = parts(T, window, places)
    mask = causal(T) & (near | chosen[:, None])
    for place in places:
        mask[:, place] = True
    return mask


@wrong("global-mask", "only-looked-at", says="collects")
def seen_by_all(T, window, places):
    mask = parts(T, window, places)[0]
    for place in places:
        mask[:, place] = True
    return mask & causal(T)


@wrong("global-mask", "only-looks", says="reaches nobody")
def sees_all(T, window, places):
    mask = parts(T, window, places)[0]
    for place in places:
        mask[place] = True
    return mask & causal(T)


@wrong("global-mask", "no-window", says="neighbours")
def globals_alone(T, window, places):
    mask = torch.zeros(T, T, dtype=torch.bool)
    for place in places:
        mask[place, : place + 1] = True
        mask[place:, place] = True
    return mask


@wrong("global-mask", None, says="expected")
def window_alone(T, window, places):
    return parts(T, window, places)[0] & causal(T)


@right("global-mask")
def pair_by_pair(T, window, places):
    mask = torch.zeros(T, T, dtype=torch.bool)
    for query in range(T):
        for key in range(query + 1):
            mask[query, key] = query - key < window or query in places or key in places
    return mask


# receptive-field


@wrong("receptive-field", "adds-windows", says="overlap")
def layers_times_window(windows, dilation):
    return sum(w * dilation for w in windows)


@wrong("receptive-field", "forgets-the-place-itself", says="these are 3 places")
def how_far_back(windows, dilation):
    reach = 0
    for w in windows:
        reach += dilation * (w - 1)
    return reach


@wrong("receptive-field", "multiplies-layers", says="add up")
def product(windows, dilation):
    total = dilation
    for w in windows:
        total *= w
    return total


@wrong("receptive-field", "widest-layer-only", says="further back")
def largest(windows, dilation):
    return max(1 + dilation * (w - 1) for w in windows)


@wrong("receptive-field", "forgets-dilation", says="not used")
def windows_alone(windows, dilation):
    return 1 + sum(windows) - len(windows)


@wrong("receptive-field", "two-sided", says="both sides")
def encoder(windows, dilation):
    return 1 + sum(2 * dilation * (w - 1) for w in windows)


@wrong("receptive-field", None, says="expected 7")
def starts_from_each_layer(windows, dilation):
    return sum((w - 1) * dilation + 1 for w in windows)


@right("receptive-field")
def step_by_step(windows, dilation):
    places = 1
    for w in windows:
        places += (w - 1) * dilation
    return places


# window-blocks


def seen_by(q, k, v, allowed):
    scores = q @ k.T / math.sqrt(q.shape[1])
    scores[~allowed] = -math.inf
    return scores.softmax(dim=-1) @ v


@wrong("window-blocks", "own-block-only", says="the block before")
def each_block_alone(q, k, v, window):
    blocks = zip(q.split(window), k.split(window), v.split(window), strict=True)
    return torch.cat([one_head(*block) for block in blocks])


@wrong("window-blocks", "window-not-sliding", says="up to twice the window")
def causal_inside_two_blocks(q, k, v, window):
    outputs = []
    for start in range(0, len(q), window):
        i = torch.arange(start, min(start + window, len(q)))
        j = torch.arange(max(0, start - window), int(i[-1]) + 1)
        outputs.append(seen_by(q[i], k[j], v[j], i[:, None] >= j[None, :]))
    return torch.cat(outputs)


@wrong("window-blocks", "future-of-the-block", says="inside a block as well")
def band_without_causality(q, k, v, window):
    outputs = []
    for start in range(0, len(q), window):
        i = torch.arange(start, min(start + window, len(q)))
        j = torch.arange(max(0, start - window), int(i[-1]) + 1)
        outputs.append(seen_by(q[i], k[j], v[j], i[:, None] - j[None, :] < window))
    return torch.cat(outputs)


@wrong("window-blocks", "drops-the-rest", says="places are missing")
def whole_blocks_only(q, k, v, window):
    outputs = [q[:0]]
    for block in range(len(q) // window):
        i = torch.arange(block * window, (block + 1) * window)
        j = torch.arange(max(0, (block - 1) * window), (block + 1) * window)
        distance = i[:, None] - j[None, :]
        outputs.append(seen_by(q[i], k[j], v[j], (distance >= 0) & (distance < window)))
    return torch.cat(outputs)


@wrong("window-blocks", "attends-to-padding", says="a score of 0")
def padded_with_zeros(q, k, v, window):
    k, v = F.pad(k, (0, 0, window, 0)), F.pad(v, (0, 0, window, 0))
    outputs = []
    for start in range(0, len(q), window):
        i = torch.arange(start, min(start + window, len(q)))
        j = torch.arange(start - window, int(i[-1]) + 1)
        distance = i[:, None] - j[None, :]
        near = (distance >= 0) & (distance < window)
        outputs.append(seen_by(q[i], k[j + window], v[j + window], near))
    return torch.cat(outputs)


@wrong("window-blocks", None, says="expected")
def full_attention(q, k, v, window):
    return one_head(q, k, v)


@fails("window-blocks", says="RuntimeError")
def wants_equal_blocks(q, k, v, window):
    return q.view(-1, window, q.shape[1]) @ k.view(-1, window, q.shape[1]).transpose(1, 2)


@right("window-blocks")
def two_blocks_of_keys(q, k, v, window):
    outputs = []
    for start in range(0, len(q), window):
        i = torch.arange(start, min(start + window, len(q)))
        j = torch.arange(max(0, start - window), int(i[-1]) + 1)
        distance = i[:, None] - j[None, :]
        outputs.append(seen_by(q[i], k[j], v[j], (distance >= 0) & (distance < window)))
    return torch.cat(outputs)


@right("window-blocks")
def query_by_query(q, k, v, window):
    outputs = []
    for i in range(len(q)):
        first = max(0, i + 1 - window)
        outputs.append(
            seen_by(
                q[i : i + 1], k[first : i + 1], v[first : i + 1], torch.ones(1, i + 1 - first) == 1
            )
        )
    return torch.cat(outputs)


@wrong("shared-heads", "divides-by-the-heads", says="h // (nh // nkv)")
def divided_by_nkv(q, k, v):
    return torch.stack(
        [one_head(q[h], k[h // k.shape[0]], v[h // k.shape[0]]) for h in range(q.shape[0])]
    )


@wrong("window-blocks", "one-too-many", says="window + 1 keys")
def distance_up_to_the_window(q, k, v, window):
    outputs = []
    for start in range(0, len(q), window):
        i = torch.arange(start, min(start + window, len(q)))
        j = torch.arange(max(0, start - window), int(i[-1]) + 1)
        distance = i[:, None] - j[None, :]
        outputs.append(seen_by(q[i], k[j], v[j], (distance >= 0) & (distance <= window)))
    return torch.cat(outputs)


@wrong("window-blocks", "dense-table", says="65,536 numbers")
def all_scores_then_a_mask(q, k, v, window):
    places = torch.arange(len(q))
    distance = places[:, None] - places[None, :]
    return seen_by(q, k, v, (distance >= 0) & (distance < window))
