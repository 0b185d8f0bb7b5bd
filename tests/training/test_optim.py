"""The learning rate, decay groups and AdamW."""

import itertools
import math

import pytest
import torch
from torch import nn

from gpt2lib.config import GPTConfig, OptimConfig
from gpt2lib.model.gpt import GPT
from gpt2lib.training.optim import decay_groups, learning_rate, make_optimizer, set_learning_rate

SCHEDULE = OptimConfig(lr=0.01, min_lr=0.1, warmup_steps=10)


def rates(steps: int, config: OptimConfig = SCHEDULE) -> list[float]:
    return [learning_rate(step, steps, config) for step in range(steps)]


def test_warm_up_is_a_straight_line_from_one_step_above_0_to_the_peak():
    assert rates(100)[:10] == pytest.approx([0.001 * (i + 1) for i in range(10)])


@pytest.mark.parametrize("steps", [12, 13, 50, 1000])
@pytest.mark.parametrize("min_lr", [0.0, 0.1, 1.0])
def test_it_rises_to_lr_then_falls_to_the_last_step(steps, min_lr):
    config = SCHEDULE.replace(min_lr=min_lr)
    all_rates = rates(steps, config)
    rising, falling = all_rates[:10], all_rates[10:]
    assert all(a < b for a, b in itertools.pairwise(rising))
    assert falling[0] == max(all_rates) == config.lr
    if min_lr < 1:
        assert all(a > b for a, b in itertools.pairwise(falling))
    assert falling[-1] == pytest.approx(config.lr * min_lr, abs=1e-12)


def test_the_fall_is_half_a_cosine():
    all_rates = rates(111)  # the fall spans steps 10 to 110
    assert all_rates[60] == pytest.approx(0.01 * (0.1 + 0.9 / 2))
    assert all_rates[35] == pytest.approx(0.01 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4))))


@pytest.mark.parametrize("steps", [1, 5, 10, 11])
def test_with_no_step_after_the_peak_it_only_rises(steps):
    expected = [0.001 * (i + 1) for i in range(min(steps, 10))] + [0.01] * (steps - 10)
    assert rates(steps) == pytest.approx(expected)


def test_without_warm_up_the_first_step_has_the_peak():
    config = SCHEDULE.replace(warmup_steps=0)
    assert rates(1, config) == [0.01]
    assert rates(2, config) == pytest.approx([0.01, 0.001])


def test_it_is_a_pure_function():
    assert learning_rate(70, 100, SCHEDULE) == learning_rate(70, 100, SCHEDULE)


@pytest.mark.parametrize("decay", ["cosine", "linear"])
@pytest.mark.parametrize("steps", [60, 101, 260])
@pytest.mark.parametrize("share", [0.02, 0.25, 0.6])
def test_it_stays_at_the_peak_and_falls_over_the_last_share(decay, steps, share):
    all_rates = rates(steps, SCHEDULE.replace(decay=decay, decay_share=share))
    falling = round(share * steps)
    assert all_rates[10 : steps - falling] == [0.01] * (steps - falling - 10)
    fall = all_rates[steps - falling - 1 :]
    assert all(a > b for a, b in itertools.pairwise(fall))
    assert fall[-1] == pytest.approx(0.001)
    done = [i / falling for i in range(falling + 1)]
    shares = [1 - d if decay == "linear" else (1 + math.cos(math.pi * d)) / 2 for d in done]
    assert fall == pytest.approx([0.001 + 0.009 * s for s in shares])


def test_a_fall_longer_than_what_the_warm_up_leaves_begins_after_it():
    for share in (0.95, 1.0):
        config = SCHEDULE.replace(decay="linear", decay_share=share)
        all_rates = rates(100, config)
        assert all_rates[9:11] == [0.01, 0.01] and all_rates[11] < 0.01
        assert all_rates[55] == pytest.approx(0.01 * (0.1 + 0.9 * 44 / 89))


def test_without_a_fall_it_stays_at_the_peak():
    assert rates(50, SCHEDULE.replace(decay_share=0.0))[10:] == [0.01] * 40


# ── decay groups ────────────────────────────────────────────────────────────────────────────────


def test_the_groups_of_gpt2_small_are_those_of_nanogpt():
    with torch.device("meta"):
        model = GPT(GPTConfig(vocab_size=50304))
    decayed, free = decay_groups(model, 0.1)
    counted = [(len(g["params"]), sum(p.numel() for p in g["params"])) for g in (decayed, free)]
    assert counted == [(50, 124_354_560), (98, 121_344)]
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)


def small() -> GPT:
    torch.manual_seed(0)
    return GPT(GPTConfig(vocab_size=13, block_size=8, n_layer=1, n_head=2, n_embd=8))


def test_every_weight_is_in_one_group_by_its_kind_and_a_frozen_one_in_none():
    model = small()
    model.transformer.wpe.weight.requires_grad_(False)
    names = {id(p): n for n, p in model.named_parameters()}
    decayed, free = ([names.pop(id(p)) for p in g["params"]] for g in decay_groups(model, 0.1))
    assert all(n.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight", "wte.weight"))
               for n in decayed)  # fmt: skip
    assert all(n.endswith("bias") or "ln_" in n for n in free)
    assert (len(decayed), len(free)) == (5, 10)
    assert list(names.values()) == ["transformer.wpe.weight"]


# ── AdamW ───────────────────────────────────────────────────────────────────────────────────────


def by_hand(p, gradients, lr, config: OptimConfig, decay: float):
    """AdamW as Loshchilov and Hutter write it (algorithm 2), in float64."""
    p, m, v = p.double(), 0.0, 0.0
    for t, g in enumerate(gradients, 1):
        m = config.beta1 * m + (1 - config.beta1) * g
        v = config.beta2 * v + (1 - config.beta2) * g**2
        m_hat, v_hat = m / (1 - config.beta1**t), v / (1 - config.beta2**t)
        p = p - lr * (m_hat / (v_hat.sqrt() + config.eps) + decay * p)
    return p.float()


def test_it_is_adamw_on_both_groups_with_every_setting_in_use():
    config = OptimConfig(lr=0.05, beta1=0.8, beta2=0.9, eps=1e-3, weight_decay=0.3)
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = make_optimizer(model, config)
    set_learning_rate(optimizer, 0.02)  # differs from config.lr: the one set last counts
    gradients = {n: [torch.randn(p.shape).double() for _ in range(3)] for n, p in start.items()}
    for i in range(3):
        for n, p in model.named_parameters():
            p.grad = gradients[n][i].float()
        optimizer.step()
    for name, decay in (("weight", 0.3), ("bias", 0.0)):
        expected = by_hand(start[name], gradients[name], 0.02, config, decay)
        torch.testing.assert_close(model.get_parameter(name).data, expected)


def test_a_weight_without_gradient_stays_as_it_is():
    model = small()
    optimizer = make_optimizer(model, OptimConfig())
    frozen = model.transformer.h[0].mlp.c_fc
    before, moving = frozen.weight.clone(), model.lm_head.weight.clone()
    model(torch.zeros(1, 4, dtype=torch.long), torch.ones(1, 4, dtype=torch.long))[0].backward()
    frozen.weight.grad = None
    optimizer.step()
    assert torch.equal(frozen.weight, before)
    assert not torch.equal(model.lm_head.weight, moving)


def test_a_tied_weight_is_stepped_once():
    model = small()
    optimizer = make_optimizer(model, OptimConfig())
    everything = [p for group in optimizer.param_groups for p in group["params"]]
    assert len({id(p) for p in everything}) == len(everything) == len(list(model.parameters()))


def test_the_learning_rate_reaches_every_group():
    optimizer = make_optimizer(small(), OptimConfig())
    set_learning_rate(optimizer, 0.123)
    assert [group["lr"] for group in optimizer.param_groups] == [0.123, 0.123]
