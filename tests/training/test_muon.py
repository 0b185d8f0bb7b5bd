"""Muon: the polynomial, the step against PyTorch's own, the groups, and what is saved."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from gpt2lib.config import GPTConfig, OptimConfig
from gpt2lib.model.gpt import GPT
from gpt2lib.model.weights import load_optimizer, optimizer_tensors
from gpt2lib.training.muon import AT_ONCE, MuonAdamW, direction, orthogonalise
from gpt2lib.training.optim import make_optimizer, parameter_groups, set_learning_rate
from gpt2lib.utils.errors import UserError

MUON = OptimConfig(name="muon", lr=0.01, weight_decay=0.1)
TINY = GPTConfig(vocab_size=17, block_size=8, n_layer=2, n_head=4, n_embd=16)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative(got: Tensor, wanted: Tensor) -> float:
    return ((got.double() - wanted.double()).norm() / wanted.double().norm()).item()


@pytest.mark.parametrize("shape", [(48, 48), (16, 64), (64, 16), (1, 9), (3, 24, 40), (2, 3, 8, 5)])
def test_it_is_the_polynomial_of_the_singular_values(shape: tuple[int, ...]) -> None:
    matrices = random(*shape) * 1e-3
    u, s, vt = torch.linalg.svd(matrices.double(), full_matrices=False)
    s = s / s.square().sum(-1, keepdim=True).sqrt()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    wanted = u @ s.diag_embed() @ vt
    assert relative(orthogonalise(matrices, torch.float32), wanted) < 1e-5
    in_bf16 = orthogonalise(matrices)
    assert in_bf16.dtype is torch.bfloat16 and relative(in_bf16, wanted) < 0.04


def test_singular_values_come_near_1_from_a_hundredth_of_the_largest() -> None:
    u, v = (torch.linalg.qr(random(32, 32, seed=i))[0] for i in (1, 2))
    spread = torch.logspace(-2, 0, 32)
    found = torch.linalg.svdvals(orthogonalise(u @ spread.diag() @ v, torch.float32))
    assert found.min() > 0.6 and found.max() < 1.25


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_the_size_of_a_gradient_does_not_matter(size: float) -> None:
    matrices = random(2, 12, 20)
    torch.testing.assert_close(
        orthogonalise(size * matrices, torch.float32), orthogonalise(matrices, torch.float32)
    )


def test_zeros_stay_zeros_beside_others() -> None:
    matrices = random(2, 6, 6) * torch.tensor([0.0, 1.0]).view(2, 1, 1)
    found = orthogonalise(matrices)
    assert not found[0].any() and found[1].any()


@pytest.mark.parametrize("rows", [(12, 12, 12), (24, 6, 6), (36,)])
def test_parts_of_a_matrix_are_matrices_of_their_own(rows: tuple[int, ...]) -> None:
    matrices = random(2, 36, 24)
    found = direction(matrices, rows, torch.float32)
    for part, got in zip(matrices.split(rows, 1), found.split(rows, 1), strict=True):
        longer = math.sqrt(max(1.0, part.size(1) / 24))
        torch.testing.assert_close(got, longer * orthogonalise(part, torch.float32))


# ── the step ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_the_step_is_pytorchs_matrix_by_matrix(decay: float) -> None:
    shapes = [(24, 16), (16, 16), (16, 48), (16, 16)]
    ours, theirs = (
        [torch.nn.Parameter(random(*shape, seed=i)) for i, shape in enumerate(shapes)]
        for _ in range(2)
    )
    optimizer = MuonAdamW([{"params": ours, "muon": True, "weight_decay": decay}], 0.05, (0.9, 0.9),
                          1e-8, 0.9)  # fmt: skip
    reference = torch.optim.Muon(theirs, lr=0.05, weight_decay=decay, momentum=0.9)
    for step in range(4):
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            a.grad = random(*a.shape, seed=100 * step + i)
            b.grad = a.grad.clone()
        before = [p.detach().clone() for p in theirs]
        optimizer.step()
        reference.step()
        for a, b, was in zip(ours, theirs, before, strict=True):
            assert relative(a.detach() - was, b.detach() - was) < 0.03
            a.data.copy_(b.data)  # bf16's rounding does not pile up
            kept = reference.state[b]["momentum_buffer"]
            torch.testing.assert_close(optimizer.state[a]["momentum"], kept)


@pytest.mark.parametrize("n_kv_head", [None, 2])
def test_queries_keys_and_values_are_stepped_as_if_they_stood_alone(n_kv_head: int | None) -> None:
    model = GPT(TINY.replace(n_kv_head=n_kv_head, n_layer=1))
    weight = model.transformer.h[0].attn.c_attn.weight
    rows = [16, 16 * (n_kv_head or 4) // 4, 16 * (n_kv_head or 4) // 4]
    alone = [torch.nn.Parameter(part.detach().clone()) for part in weight.split(rows)]
    reference = torch.optim.Muon(alone, lr=0.05, weight_decay=0.0)
    optimizer = make_optimizer(model, MUON.replace(muon_lr=0.05, weight_decay=0.0))
    set_learning_rate(optimizer, MUON.lr)
    weight.grad = random(*weight.shape)
    for part, gradient in zip(alone, weight.grad.split(rows), strict=True):
        part.grad = gradient.clone()
    before = weight.detach().clone()
    optimizer.step()
    reference.step()
    assert relative(weight.detach() - before, torch.cat(alone).detach() - before) < 0.03


def test_what_is_not_muons_is_stepped_by_adamw_bit_for_bit() -> None:
    torch.manual_seed(0)
    one, two = GPT(TINY), GPT(TINY)
    two.load_state_dict(one.state_dict())
    config = MUON.replace(embedding_lr=0.03, beta1=0.8, eps=1e-4)
    optimizers = [make_optimizer(m, c) for m, c in
                  ((one, config), (two, config.replace(name="adamw")))]  # fmt: skip
    idx = torch.randint(17, (2, 8))
    for optimizer in optimizers:
        set_learning_rate(optimizer, 0.02)
    for model in (one, two):
        model(idx, idx)[0].backward()
    for p, q in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)  # type: ignore[arg-type]
    for optimizer in optimizers:
        optimizer.step()
    for (name, p), q in zip(one.named_parameters(), two.parameters(), strict=True):
        hidden = ".h." in name and p.dim() == 2
        assert torch.equal(p, q) != hidden, name


def test_many_small_matrices_or_one_large_at_once_make_no_difference(monkeypatch: Any) -> None:
    def stepped() -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = GPT(TINY)
        optimizer = make_optimizer(model, MUON, "fp32")
        model(torch.arange(8)[None], torch.arange(8)[None])[0].backward()
        optimizer.step()
        return model.state_dict()

    together = stepped()
    assert AT_ONCE > 4 * 16 * 64
    monkeypatch.setattr("gpt2lib.training.muon.AT_ONCE", 1)
    torch.testing.assert_close(stepped(), together)


def test_a_matrix_without_gradient_stays_and_one_with_a_gradient_of_zeros_only_decays() -> None:
    model = GPT(TINY)
    optimizer = make_optimizer(model, MUON)
    set_learning_rate(optimizer, 0.01)
    still, zero = model.transformer.h[0].mlp.c_fc.weight, model.transformer.h[1].mlp.c_fc.weight
    before = still.clone(), zero.clone()
    model(torch.zeros(1, 8, dtype=torch.long))[0].sum().backward()
    still.grad, zero.grad = None, torch.zeros_like(zero)
    optimizer.step()
    assert torch.equal(still, before[0])
    torch.testing.assert_close(zero.data, before[1] * (1 - 0.02 * 0.1))


def test_products_are_in_bf16_only_where_the_run_is() -> None:
    found = {p: make_optimizer(GPT(TINY), MUON, p).dtype for p in ("fp32", "bf16", "fp16")}  # type: ignore[attr-defined]
    assert found == {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float32}


# ── groups ──────────────────────────────────────────────────────────────────────────────────────

SHAPES: list[tuple[dict[str, Any], int]] = [
    ({}, 2),
    ({"tie_weights": False}, 3),
    ({"position": "rope", "bias": False}, 1),
    ({"n_kv_head": 1, "tie_weights": False, "position": "none"}, 2),
    ({"without": ("mlp",)}, 2),
    ({"n_layer": 0}, 2),
]
"""Changes of the shape, and how many matrices AdamW keeps: embeddings and an untied head."""


@pytest.mark.parametrize(("changes", "kept"), SHAPES)
def test_every_parameter_is_in_one_group_and_muon_has_the_matrices_of_the_blocks(
    changes: dict[str, Any], kept: int
) -> None:
    config = TINY.replace(**changes)
    model = GPT(config)
    groups: list[dict[str, Any]] = make_optimizer(model, MUON).param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    placed = [names.pop(id(p)) for group in groups for p in group["params"]]
    assert names == {} and len(placed) == len(set(placed))
    by_muon = [p for group in groups if group["muon"] for p in group["params"]]
    a_block = 2 if "mlp" in config.without else 4
    assert len(by_muon) == a_block * config.n_layer
    by_adamw = [p for group in groups if not group["muon"] for p in group["params"]]
    assert sum(p.dim() == 2 for p in by_adamw) == kept
    for group in groups:
        assert all(group["weight_decay"] == (0.1 if p.dim() == 2 else 0) for p in group["params"])


def test_queries_keys_and_values_are_taken_apart() -> None:
    for n_kv_head, rows in ((None, (16, 16, 16)), (1, (16, 4, 4))):
        model = GPT(TINY.replace(n_kv_head=n_kv_head))
        found = {g["rows"]: len(g["params"]) for g in parameter_groups(model, MUON) if "rows" in g}  # type: ignore[arg-type]
        assert found == {(): 6, rows: 2}


def test_every_rate_follows_the_schedule() -> None:
    config = MUON.replace(muon_lr=0.02, embedding_lr=0.05, head_lr=0.002)
    model = GPT(TINY.replace(tie_weights=False))
    optimizer = make_optimizer(model, config)
    set_learning_rate(optimizer, config.lr / 4)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, p in model.named_parameters():
        top = 0.02 if ".h." in name and p.dim() == 2 else 0.01
        top = {"transformer.wte.weight": 0.05, "transformer.wpe.weight": 0.05,
               "lm_head.weight": 0.002}.get(name, top)  # fmt: skip
        assert rates[id(p)] == pytest.approx(top / 4), name


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_rate_for_a_tied_head_is_refused(name: Any) -> None:
    config = OptimConfig(name=name, head_lr=0.01)
    with pytest.raises(
        UserError, match=r"head_lr is 0\.01, .* embedding; set embedding_lr .*tie_weights"
    ):
        make_optimizer(GPT(TINY), config)
    untied = GPT(TINY.replace(tie_weights=False))
    make_optimizer(untied, config)
    untied.lm_head.requires_grad_(False)  # frozen is not tied
    make_optimizer(untied, config)


@pytest.mark.parametrize("asked", [{"name": "muon"}, {"embedding_lr": 0.1}, {"head_lr": 0.1}])
def test_a_wrapped_model_whose_parts_have_other_names_is_refused(asked: dict[str, Any]) -> None:
    model = torch.compile(GPT(TINY.replace(tie_weights=False)))  # compiles when it is called
    with pytest.raises(UserError, match="need the GPT itself, not OptimizedModule"):
        make_optimizer(model, OptimConfig.from_dict(asked))  # type: ignore[arg-type]
    make_optimizer(model, OptimConfig())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "sgd"}, "name must be one of adamw, muon, not 'sgd'"),
        ({"decay": "step"}, "decay must be one of cosine, linear"),
        ({"muon_lr": 0.0}, "muon_lr must be above 0 and below 10, not 0.0"),
        ({"embedding_lr": 10.0}, "embedding_lr must be above 0 and below 10"),
        ({"head_lr": float("nan")}, "head_lr must be above 0 and below 10, not nan"),
        ({"muon_momentum": 1.0}, "muon_momentum must be at least 0 and below 1, not 1.0"),
        ({"decay_share": 1.5}, "decay_share must be at most 1, not 1.5"),
        ({"decay_share": -0.5}, "decay_share must be at least 0, not -0.5"),
        ({"decay_share": float("nan")}, "decay_share must be at least 0, not nan"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        OptimConfig.from_dict(fields)


# ── what is saved ───────────────────────────────────────────────────────────────────────────────


def test_an_optimiser_that_is_put_back_goes_on_bit_for_bit() -> None:
    def advance(model: GPT, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            idx = torch.randint(17, (2, 8), generator=torch.Generator().manual_seed(step))
            model(idx, idx.roll(-1, 1))[0].backward()
            optimizer.step()
            optimizer.zero_grad()

    torch.manual_seed(0)
    once, twice = GPT(TINY), GPT(TINY)
    twice.load_state_dict(once.state_dict())
    whole, first, second = (make_optimizer(model, MUON) for model in (once, twice, twice))
    advance(once, whole, range(6))
    advance(twice, first, range(3))
    saved = {name: t.clone() for name, t in optimizer_tensors(twice, first).items()}
    kinds = [name.partition("/")[0] for name in saved]
    assert {k: kinds.count(k) for k in kinds} == {"momentum": 8, "step": 20, "exp_avg": 20,
                                                  "exp_avg_sq": 20}  # fmt: skip
    load_optimizer(twice, second, saved)
    advance(twice, second, range(3, 6))
    for (name, a), b in zip(once.state_dict().items(), twice.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_its_own_state_comes_back_where_the_fused_kernel_wants_it() -> None:
    model = GPT(TINY)
    optimizer = make_optimizer(model, MUON)
    model(*torch.randint(17, (2, 2, 8)))[0].backward()
    optimizer.step()
    saved = optimizer.state_dict()
    for of_one in saved["state"].values():  # float64 stands here for another device
        of_one.update({key: t.double() for key, t in of_one.items()})
    optimizer.load_state_dict(saved)
    assert {t.dtype for of_one in optimizer.state.values() for t in of_one.values()} == {
        torch.float32
    }
    optimizer.step()
