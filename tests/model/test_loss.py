"""The next-token loss."""

import math

import pytest
import torch

from gpt2lib.config import IGNORE
from gpt2lib.model.loss import next_token_loss

B, T, V = 3, 5, 11


def problem(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (B, T, V) and targets (B, T), some of them ignored."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(B, T, V, generator=generator)
    targets = torch.randint(V, (B, T), generator=generator)
    targets[0, 0] = targets[2, 3:] = IGNORE
    return logits, targets


def naive(logits: torch.Tensor, targets: torch.Tensor) -> tuple[float, int]:
    """The definition in Python numbers: minus the log of the softmax at the target, summed."""
    total, count = 0.0, 0
    for b in range(logits.size(0)):
        for t in range(logits.size(1)):
            target = int(targets[b, t])
            if target == -1:
                continue
            scores = logits[b, t].tolist()
            total -= scores[target] - math.log(sum(math.exp(s) for s in scores))
            count += 1
    return total, count


def test_it_is_the_naive_sum_and_the_count():
    logits, targets = problem()
    loss, count = next_token_loss(logits, targets)
    expected, n = naive(logits, targets)
    assert loss.shape == count.shape == ()
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert count.item() == n == B * T - 3


def test_what_stands_at_an_ignored_position_does_not_matter():
    logits, targets = problem()
    changed = logits.clone()
    changed[targets == IGNORE] = 1e4
    assert torch.equal(next_token_loss(logits, targets)[0], next_token_loss(changed, targets)[0])


def test_all_ignored_is_0_of_0_and_not_nan():
    logits, targets = problem()
    logits.requires_grad_()
    loss, count = next_token_loss(logits, torch.full_like(targets, IGNORE))
    loss.backward()
    assert (loss.item(), count.item()) == (0.0, 0)
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_sums_and_gradients_of_micro_batches_add_up_to_the_big_batch():
    logits, targets = problem()
    whole = logits.clone().requires_grad_()
    loss, count = next_token_loss(whole, targets)
    loss.backward()
    parts = logits.clone().requires_grad_()
    losses, counts = 0.0, 0
    for b in range(B):  # the counts differ: 4, 5 and 3
        part, n = next_token_loss(parts[b : b + 1], targets[b : b + 1])
        part.backward()
        losses, counts = losses + part.item(), counts + n.item()
    assert losses == pytest.approx(loss.item(), rel=1e-6)
    assert counts == count.item()
    torch.testing.assert_close(parts.grad, whole.grad)


def test_the_gradient_is_softmax_minus_one_hot_and_0_where_ignored():
    logits, targets = problem()
    logits.requires_grad_()
    next_token_loss(logits, targets)[0].backward()
    expected = logits.detach().softmax(-1)
    for b, t in (targets != IGNORE).nonzero().tolist():
        expected[b, t, targets[b, t]] -= 1
    expected[targets == IGNORE] = 0
    torch.testing.assert_close(logits.grad, expected)


def test_it_is_float32_from_bf16_logits_and_under_autocast():
    logits, targets = problem()
    rough = logits.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        under, _ = next_token_loss(rough, targets)
    plain, _ = next_token_loss(rough, targets)
    assert under.dtype is plain.dtype is torch.float32
    expected, _ = naive(rough.double(), targets)
    assert under.item() == plain.item() == pytest.approx(expected, rel=1e-6)


def test_huge_logits_do_not_overflow():
    logits = torch.tensor([[[1e4, 0.0]]])
    assert next_token_loss(logits, torch.tensor([[0]]))[0].item() == 0.0
    assert next_token_loss(logits, torch.tensor([[1]]))[0].item() == 1e4
