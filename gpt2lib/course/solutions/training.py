"""Solutions of notebook 16."""

import math

from gpt2lib.model.loss import next_token_loss


def my_learning_rate(step, steps, lr, warmup_steps, min_lr):
    """Return a float. step, steps, warmup_steps: ints. lr, min_lr: floats, min_lr a share of lr."""
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    done = (step - warmup_steps) / (steps - 1 - warmup_steps)
    share = 0.5 * (1 + math.cos(math.pi * done))
    return lr * (min_lr + (1 - min_lr) * share)


def my_batch_loss(pieces):
    """Return a float. pieces: a list of (logits, targets), (B, T, V) and (B, T)."""
    parts = [next_token_loss(logits, targets) for logits, targets in pieces]
    return float(sum(loss for loss, _ in parts) / sum(count for _, count in parts))


def my_window_starts(n_tokens, block_size):
    """Return a list of ints. n_tokens, block_size: ints."""
    return list(range(0, n_tokens - 1, block_size))
