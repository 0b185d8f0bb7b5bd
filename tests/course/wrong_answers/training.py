"""Answers to the exercises of notebook 16."""

import math

import torch
from torch.nn import functional as F

from gpt2lib.model.loss import next_token_loss
from wrong_answers import fails, right, wrong


def decay(done):
    return (math.cos(math.pi * done) + 1) / 2


@wrong("learning-rate", "starts-at-zero", says="the first update has learning rate 0")
def first_update_does_nothing(step, steps, lr, warmup_steps, min_lr):
    if step < warmup_steps:
        return step * lr / warmup_steps
    low = lr * min_lr
    done = (step - warmup_steps) / (steps - warmup_steps - 1)
    return low + (lr - low) * decay(done)


@wrong("learning-rate", "falls-to-zero", says="lr * min_lr")
def ignores_min_lr(step, steps, lr, warmup_steps, min_lr):
    if step < warmup_steps:
        return lr / warmup_steps * (step + 1)
    return lr * decay((step - warmup_steps) / (steps - warmup_steps - 1))


@wrong("learning-rate", "min-lr-is-a-rate", says="share of lr")
def min_lr_as_in_nanogpt(step, steps, lr, warmup_steps, min_lr):
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    ratio = (step - warmup_steps) / (steps - 1 - warmup_steps)
    coefficient = 0.5 * (1.0 + math.cos(math.pi * ratio))
    return min_lr + coefficient * (lr - min_lr)


@wrong("learning-rate", "cosine-from-step-zero", says="jumps down")
def progress_of_the_whole_run(step, steps, lr, warmup_steps, min_lr):
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    low = lr * min_lr
    return low + (lr - low) * decay(step / (steps - 1))


@wrong("learning-rate", "never-arrives", says="one step short")
def off_by_one(step, steps, lr, warmup_steps, min_lr):
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    low = lr * min_lr
    return low + (lr - low) * decay((step - warmup_steps) / (steps - warmup_steps))


@wrong("learning-rate", "whole-wave", says="comes up again")
def two_pi(step, steps, lr, warmup_steps, min_lr):
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    low = lr * min_lr
    angle = 2 * math.pi * (step - warmup_steps) / (steps - 1 - warmup_steps)
    return low + (lr - low) * (1 + math.cos(angle)) / 2


@wrong("learning-rate", "straight-line", says="straight line")
def linear(step, steps, lr, warmup_steps, min_lr):
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    left = (steps - 1 - step) / (steps - 1 - warmup_steps)  # from 1 to 0
    return lr * min_lr + (lr - lr * min_lr) * left


@wrong("learning-rate", None, says="expected")
def no_warmup_at_all(step, steps, lr, warmup_steps, min_lr):
    return lr * min_lr + (lr - lr * min_lr) * decay(step / steps)


@fails("learning-rate", says="NameError: name 'cos' is not defined")
def cosine_without_math(step, steps, lr, warmup_steps, min_lr):
    return lr * cos(step / steps)  # noqa: F821


@right("learning-rate")
def with_min(step, steps, lr, warmup_steps, min_lr):
    rise = min(1.0, (step + 1) / warmup_steps)
    done = max(0, step - warmup_steps) / max(1, steps - 1 - warmup_steps)
    return lr * rise * (min_lr + (1 - min_lr) * math.cos(math.pi / 2 * done) ** 2)


@wrong("accumulated-loss", "mean-of-means", says="counts as much as one with many")
def means_of_micro_batches(pieces):
    total = 0.0
    for logits, targets in pieces:
        mean = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)
        total += mean.item() / len(pieces)
    return total


@wrong("accumulated-loss", "counts-ignored-targets", says="must not be counted")
def divides_by_numel(pieces):
    loss, n = 0.0, 0
    for logits, targets in pieces:
        loss += next_token_loss(logits, targets)[0].item()
        n += targets.numel()
    return loss / n


@wrong("accumulated-loss", "a-sum", says="summed loss")
def only_adds(pieces):
    return sum(next_token_loss(logits, targets)[0].item() for logits, targets in pieces)


@wrong("accumulated-loss", "divided-twice")
def accumulation_steps_too(pieces):
    loss, n = 0.0, 0
    for logits, targets in pieces:
        summed, count = next_token_loss(logits, targets)
        loss += summed.item() / len(pieces)
        n += count.item()
    return loss / n


@wrong("accumulated-loss", "last-piece-only", says="last piece alone")
def overwrites(pieces):
    for logits, targets in pieces:
        summed, count = next_token_loss(logits, targets)
        loss = summed.item() / count.item()
    return loss


@wrong("accumulated-loss", None, says="expected")
def first_piece_only(pieces):
    summed, count = next_token_loss(*pieces[0])
    return summed.item() / count.item()


@right("accumulated-loss")
def sums_and_counts(pieces):
    results = [next_token_loss(logits, targets) for logits, targets in pieces]
    return (sum(s for s, _ in results) / sum(c for _, c in results)).item()


@right("accumulated-loss")
def one_big_batch(pieces):
    logits = torch.cat([x.flatten(0, 1) for x, _ in pieces])
    targets = torch.cat([y.flatten() for _, y in pieces])
    return F.cross_entropy(logits, targets, ignore_index=-1).item()


@wrong("eval-windows", "drops-the-rest", says="never scored")
def whole_windows_only(n_tokens, block_size):
    return [i * block_size for i in range((n_tokens - 1) // block_size)]


@wrong("eval-windows", "nothing-to-predict", says="no token after it")
def one_too_many(n_tokens, block_size):
    starts, start = [], 0
    while start < n_tokens:
        starts.append(start)
        start += block_size
    return starts


@wrong("eval-windows", "overlapping", says="scored twice")
def stride_too_short(n_tokens, block_size):
    return [s for s in range(n_tokens - 1) if s % (block_size - 1) == 0]


@wrong("eval-windows", "skips-a-token", says="never scored")
def stride_too_long(n_tokens, block_size):
    return [s for s in range(n_tokens - 1) if s % (block_size + 1) == 0]


@wrong("eval-windows", "starts-at-one", says="starts at 0")
def from_one(n_tokens, block_size):
    return [1 + i for i in range(0, n_tokens - 2, block_size)]


@wrong("eval-windows", None, says="expected")
def every_token(n_tokens, block_size):
    return list(range(n_tokens - block_size))


@right("eval-windows")
def a_loop(n_tokens, block_size):
    starts, start = [], 0
    while start + 1 < n_tokens:
        starts.append(start)
        start += block_size
    return starts


@wrong("eval-windows", "last-moved-back", says="scored twice")
def full_last_window(n_tokens, block_size):
    starts = list(range(0, n_tokens - block_size, block_size))
    last = max(0, n_tokens - 1 - block_size)
    return starts if starts and starts[-1] == last else [*starts, last]
