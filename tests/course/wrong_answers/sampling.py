"""Answers to the exercises of notebook 11."""

import torch
from torch.nn import functional as F

from wrong_answers import fails, right, wrong

# temperature-probabilities


@wrong("temperature-probabilities", "multiplies", says="yours flattens")
def times_the_temperature(logits, temperature):
    return F.softmax(temperature * logits, dim=-1)


@wrong("temperature-probabilities", "after-the-softmax", says="no longer sum to 1")
def probabilities_over_temperature(logits, temperature):
    return F.softmax(logits, dim=-1) / temperature


@wrong("temperature-probabilities", "without-temperature", says="brought back to a sum of 1")
def divides_and_normalises(logits, temperature):
    p = F.softmax(logits, dim=-1) / temperature
    return p / p.sum(dim=-1, keepdim=True)


@wrong("temperature-probabilities", "over-the-batch")
def softmax_over_rows(logits, temperature):
    return torch.softmax(logits / temperature, dim=0)


@wrong("temperature-probabilities", "no-softmax")
def scaled_logits(logits, temperature):
    return logits / temperature


@wrong("temperature-probabilities", None, says="expected")
def powers_of_e_only(logits, temperature):
    return torch.exp(logits / temperature)


@right("temperature-probabilities")
def a_power_of_the_probabilities(logits, temperature):
    raised = F.softmax(logits, dim=-1) ** (1 / temperature)
    return raised / raised.sum(dim=-1, keepdim=True)


# top-k


@wrong("top-k", "zero-logits", says="exp(0) is 1")
def zero_for_the_rest(logits, k):
    values, places = torch.topk(logits, k, dim=-1)
    return torch.zeros_like(logits).scatter(-1, places, values).softmax(dim=-1)


@wrong("top-k", "not-renormalised", says="sum to 1 again")
def cut_after_the_softmax(logits, k):
    p = logits.softmax(dim=-1)
    values, places = p.topk(k, dim=-1)
    return torch.zeros_like(p).scatter(-1, places, values)


@wrong("top-k", "least-likely")
def sorted_the_wrong_way(logits, k):
    out = torch.full_like(logits, float("-inf"))
    for row in range(len(logits)):
        for i in torch.argsort(logits[row])[:k]:
            out[row, i] = logits[row, i]
    return out.softmax(dim=-1)


@wrong("top-k", "one-threshold-for-all", says="own k likeliest")
def global_threshold(logits, k):
    smallest = torch.sort(logits.reshape(-1), descending=True).values[k - 1]
    return torch.where(logits >= smallest, logits, -torch.inf).softmax(dim=-1)


@wrong("top-k", "ties-stay", says="by index")
def threshold(logits, k):
    smallest = torch.sort(logits, dim=-1, descending=True).values[:, k - 1 : k]
    return torch.where(logits >= smallest, logits, -torch.inf).softmax(dim=-1)


@fails("top-k", says="in line 3 of")
def k_of_the_wrong_kind(logits, k):
    return logits.topk(k).softmax(dim=-1)


@right("top-k")
def row_by_row(logits, k):
    out = torch.zeros_like(logits)
    for row in range(len(logits)):
        best = torch.argsort(logits[row], descending=True)[:k]
        out[row, best] = logits[row, best].softmax(dim=-1)
    return out


# top-p


def _loop(logits, p, stop_before=False, normalise=True):
    out = torch.zeros_like(logits)
    for row, chances in enumerate(logits.softmax(dim=-1)):
        reached = 0.0
        for i in torch.argsort(chances, descending=True):
            if stop_before and reached + chances[i] > p:
                break
            out[row, i] = chances[i]
            reached += float(chances[i])
            if reached >= p:
                break
    return out / out.sum(dim=-1, keepdim=True) if normalise else out


@right("top-p")
def by_a_loop(logits, p):
    return _loop(logits, p)


@wrong("top-p", "drops-the-crossing-token", says="belongs to the set")
def stops_one_too_early(logits, p):
    return _loop(logits, p, stop_before=True)


@wrong("top-p", "not-renormalised", says="divide by its sum")
def forgets_the_division(logits, p):
    return _loop(logits, p, normalise=False)


@wrong("top-p", "stays-sorted", says="entry 0 must belong to token 0")
def never_goes_back(logits, p):
    chances, _ = torch.sort(logits.softmax(dim=-1), descending=True)
    before = torch.cumsum(chances, dim=-1) - chances
    chances = torch.where(before < p, chances, 0.0)
    return chances / chances.sum(dim=-1, keepdim=True)


@wrong("top-p", "least-likely-first", says="descending=True")
def ascending(logits, p):
    chances, order = torch.sort(logits.softmax(dim=-1))
    before = torch.cumsum(chances, dim=-1) - chances
    chances = torch.where(before < p, chances, 0.0)
    chances = chances / chances.sum(dim=-1, keepdim=True)
    out = torch.empty_like(chances)
    for row in range(len(out)):
        out[row, order[row]] = chances[row]
    return out


@wrong("top-p", "as-a-threshold", says="sum up to")
def at_least_p_each(logits, p):
    chances = logits.softmax(dim=-1)
    chances = chances * (chances >= p)
    return chances / chances.sum(dim=-1, keepdim=True)


@wrong("top-p", None, says="expected")
def only_the_likeliest(logits, p):
    return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).float()


# repetition-penalty


@wrong("repetition-penalty", "divides-negative-logits", says="a logit of -2.00 became -1.00")
def always_divides(logits, seen, penalty):
    logits = logits.clone()
    logits[seen] /= penalty
    return logits


@wrong("repetition-penalty", "multiplies-all", says="divide it")
def always_multiplies(logits, seen, penalty):
    return torch.where(seen, logits * penalty, logits)


@wrong("repetition-penalty", "subtracts")
def minus(logits, seen, penalty):
    return logits - penalty * seen.float()


@wrong("repetition-penalty", "everything", says="did not occur")
def forgets_seen(logits, seen, penalty):
    return torch.where(logits < 0, logits * penalty, logits / penalty)


@wrong("repetition-penalty", "the-unseen")
def branches_swapped(logits, seen, penalty):
    penalised = torch.where(logits < 0, logits * penalty, logits / penalty)
    return torch.where(seen, logits, penalised)


@wrong("repetition-penalty", "changes-its-input", says="work on a copy")
def in_place(logits, seen, penalty):
    logits[seen] = torch.where(logits < 0, logits * penalty, logits / penalty)[seen]
    return logits


@right("repetition-penalty")
def number_by_number(logits, seen, penalty):
    out = logits.clone()
    for row in range(logits.shape[0]):
        for token in range(logits.shape[1]):
            if seen[row, token]:
                positive = logits[row, token] > 0
                out[row, token] *= 1 / penalty if positive else penalty
    return out


# cached-step


def _attend(q, k, v):
    return (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(dim=-1) @ v


@right("cached-step")
def appended_then_attended(q, k, v, past_k, past_v):
    k, v = torch.cat([past_k, k], 2), torch.cat([past_v, v], 2)
    return F.scaled_dot_product_attention(q, k, v), k, v


@wrong("cached-step", "without-itself", says="after the new key was added")
def attends_first(q, k, v, past_k, past_v):
    y = _attend(q, past_k, past_v)
    return y, torch.cat([past_k, k], 2), torch.cat([past_v, v], 2)


@wrong("cached-step", "only-the-first-key", says="is_causal=True")
def causal_by_name(q, k, v, past_k, past_v):
    k, v = torch.cat([past_k, k], 2), torch.cat([past_v, v], 2)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True), k, v


@wrong("cached-step", "forgets-the-scale", says="root of the head size")
def plain_products(q, k, v, past_k, past_v):
    k, v = torch.cat([past_k, k], 2), torch.cat([past_v, v], 2)
    return torch.softmax(q @ k.transpose(2, 3), dim=-1) @ v, k, v


@wrong("cached-step", "new-in-front", says="behind them")
def put_in_front(q, k, v, past_k, past_v):
    k, v = torch.cat([k, past_k], 2), torch.cat([v, past_v], 2)
    return _attend(q, k, v), k, v


@wrong("cached-step", "softmax-over-queries")
def wrong_dimension(q, k, v, past_k, past_v):
    k, v = torch.cat([past_k, k], 2), torch.cat([past_v, v], 2)
    scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
    return scores.softmax(dim=2) @ v, k, v


@wrong("cached-step", "value-not-kept", says="the next token needs it")
def forgets_the_value(q, k, v, past_k, past_v):
    k = torch.cat([past_k, k], 2)
    return _attend(q, k, torch.cat([past_v, v], 2)), k, past_v


@fails("cached-step", says="in line 3 of")
def stacks_the_heads(q, k, v, past_k, past_v):
    return _attend(q, torch.cat([past_k, k], 0), v), k, v


# cache-bytes


def _kept(config, tokens):
    return sum(tokens if w is None else min(w, tokens) for w in config.windows)


@right("cache-bytes")
def counted_in_full(config, tokens, batch, bytes_per_number):
    channels = config.n_embd // config.n_head * (config.n_kv_head or config.n_head)
    return 2 * _kept(config, tokens) * batch * channels * bytes_per_number


@wrong("cache-bytes", "only-keys", says="half of it")
def keys(config, tokens, batch, bytes_per_number):
    width = config.kv_heads * config.head_size
    return _kept(config, tokens) * batch * width * bytes_per_number


@wrong("cache-bytes", "all-heads", says="config.kv_heads")
def full_width(config, tokens, batch, bytes_per_number):
    return 2 * _kept(config, tokens) * batch * config.n_embd * bytes_per_number


@wrong("cache-bytes", "one-layer")
def no_layers(config, tokens, batch, bytes_per_number):
    mean = _kept(config, tokens) // config.n_layer
    return 2 * mean * batch * config.kv_heads * config.head_size * bytes_per_number


@wrong("cache-bytes", "no-window", says="than the window shows")
def every_token(config, tokens, batch, bytes_per_number):
    numbers = 2 * config.n_layer * config.kv_heads * config.head_size
    return numbers * tokens * batch * bytes_per_number


@wrong("cache-bytes", "window-always-full", says="min(w, tokens)")
def windows_as_they_are(config, tokens, batch, bytes_per_number):
    kept = sum(w or tokens for w in config.windows)
    return 2 * kept * batch * config.kv_heads * config.head_size * bytes_per_number


@wrong("cache-bytes", "one-row")
def forgets_the_batch(config, tokens, batch, bytes_per_number):
    width = config.kv_heads * config.head_size
    return 2 * _kept(config, tokens) * width * bytes_per_number


# int8-rows


@wrong("int8-rows", "one-scale-for-all", says="few steps left")
def scale_of_the_matrix(weight):
    scale = torch.full((weight.size(0), 1), weight.abs().max().item() / 127)
    return torch.round(weight / scale).to(torch.int8), scale


@wrong("int8-rows", "a-scale-a-column", says="scales of the columns")
def along_the_wrong_axis(weight):
    scale = weight.abs().max(dim=0, keepdim=True).values / 127
    return torch.round(weight / scale).to(torch.int8), scale


@wrong("int8-rows", "cuts-off", says="doubles the error")
def converts_at_once(weight):
    scale = weight.abs().max(dim=1, keepdim=True).values / 127
    return (weight / scale).to(torch.int8), scale


@wrong("int8-rows", "forgets-the-sign", says="abs()")
def largest_without_abs(weight):
    scale = weight.max(dim=1, keepdim=True).values / 127
    whole = torch.round(weight / scale).to(torch.int64)
    return ((whole + 128) % 256 - 128).to(torch.int8), scale


@wrong("int8-rows", "128-steps", says="wraps around")
def two_to_the_seven(weight):
    scale = weight.abs().max(dim=1, keepdim=True).values / 2**7
    whole = torch.round(weight / scale).to(torch.int64)
    return ((whole + 128) % 256 - 128).to(torch.int8), scale


@wrong("int8-rows", None, says="expected")
def stretched_over_the_range(weight):
    low, high = weight.min(dim=1, keepdim=True).values, weight.max(dim=1, keepdim=True).values
    scale = (high - low) / 255
    return torch.round((weight - low) / scale - 128).to(torch.int8), scale


@fails("int8-rows", says="in line 4 of")
def rounds_a_number(weight):
    scale = weight.abs().amax(1) / 127
    return torch.round(weight / scale).to(torch.int8), scale


@right("int8-rows")
def with_loops(weight):
    numbers, scales = [], []
    for row in weight:
        scale = max(abs(value) for value in row.tolist()) / 127
        numbers.append([round(value / scale) for value in row.tolist()])
        scales.append([scale])
    return torch.tensor(numbers, dtype=torch.int8), torch.tensor(scales)


@wrong("top-p", "zero-logits", says="exp(0) is 1")
def zeros_for_the_rest(logits, p):
    kept = _loop(logits, p) > 0
    return torch.where(kept, logits, 0.0).softmax(dim=-1)


@wrong("int8-rows", "row-of-zeros", says="left to chance")
def nothing_for_zeros(weight):
    scale = weight.abs().max(dim=1, keepdim=True).values / 127
    return torch.round(weight / scale).to(torch.int8), scale
