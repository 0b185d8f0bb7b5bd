"""The model: GPT-2's names, sizes and numbers, and training that learns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel
from transformers_twin import randomise, twins

from gpt2lib.config import IGNORE, GPTConfig
from gpt2lib.model import attention
from gpt2lib.model.gpt import GPT
from gpt2lib.model.kernels import window as local_attention
from gpt2lib.model.positions import identity
from gpt2lib.utils.errors import UserError

TINY = GPTConfig(vocab_size=50, block_size=16, n_layer=2, n_head=3, n_embd=24)
COUNTS = {
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
}


def tiny(**changes: object) -> GPT:
    torch.manual_seed(0)
    model = GPT(TINY.replace(**changes))
    randomise(model)
    return model


def tokens(B: int, T: int, seed: int = 0) -> Tensor:
    return torch.randint(50, (B, T), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts(name: str) -> None:
    with torch.device("meta"):
        assert GPT(GPTConfig.preset(name)).num_parameters() == COUNTS[name]


@pytest.mark.parametrize(
    ("idx", "targets", "said"),
    [
        (0, -100, "targets hold -100, .* 0 to 49; what is not to be scored is -1"),
        (0, 50, "targets hold 50, but the model has 50 tokens"),
        (50, 0, "idx hold 50, but the model has 50 tokens, 0 to 49$"),
        (-1, 0, "idx hold -1"),
    ],
)
def test_ids_without_a_row_are_named(idx: int, targets: int, said: str) -> None:
    ids = torch.full((2, 4), 3)
    ids[1, 2] = idx
    with pytest.raises(UserError, match=said):
        tiny()(ids, torch.full((2, 4), targets))
    if idx:
        with pytest.raises(UserError, match=said):
            tiny()(ids)


def test_untied_parameter_count() -> None:
    with torch.device("meta"):
        assert GPT(GPTConfig(tie_weights=False)).num_parameters() == 163_037_184


def test_names_and_shapes_are_those_of_transformers() -> None:
    with torch.device("meta"):
        ours = GPT(GPTConfig()).state_dict()
        theirs = GPT2LMHeadModel(GPT2Config()).state_dict()
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        linear = name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))
        assert value.shape == (theirs[name].T if linear else theirs[name]).shape, name


@pytest.mark.parametrize("std", [0.2, 0.02])
@pytest.mark.parametrize("tie_weights", [True, False])
@pytest.mark.parametrize("T", [1, 5, 16])
def test_logits_are_those_of_transformers(T: int, tie_weights: bool, std: float) -> None:
    ours, theirs = twins(TINY.replace(tie_weights=tie_weights), std=std)
    idx = tokens(3, T)
    with torch.no_grad():
        torch.testing.assert_close(ours(idx), theirs(idx).logits, atol=1e-5, rtol=1e-5)


def test_gradients_are_those_of_transformers() -> None:
    ours, theirs = twins(TINY)
    idx = tokens(3, 16)
    loss, count = ours(idx[:, :-1], idx[:, 1:])
    (loss / count).backward()
    theirs(idx, labels=idx).loss.backward()
    wanted = dict(theirs.named_parameters())
    for name, p in ours.named_parameters():
        g = wanted[name].grad
        g = g.T if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")) else g
        torch.testing.assert_close(p.grad, g, atol=1e-5, rtol=1e-4)


def test_no_logit_depends_on_a_later_embedding() -> None:
    model = tiny().eval()
    leaves: list[Tensor] = []

    def keep(_: object, __: object, output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[-1]

    model.transformer.wte.register_forward_hook(keep)
    logits = model(tokens(1, 9))
    for t in range(9):
        (gradient,) = torch.autograd.grad(logits[0, t].square().sum(), leaves[0], retain_graph=True)
        sizes = gradient[0].abs().sum(-1)
        assert bool((sizes[: t + 1] > 0).all())
        assert bool((sizes[t + 1 :] == 0).all())


@pytest.mark.parametrize("t", [0, 4, 8])
def test_no_logit_changes_with_later_tokens(t: int) -> None:
    model, idx = tiny().eval(), tokens(2, 9)
    changed = idx.clone()
    changed[:, t + 1 :] = (changed[:, t + 1 :] + 17) % 50
    before, after = model(idx), model(changed)
    assert torch.equal(before[:, : t + 1], after[:, : t + 1])
    assert t == 8 or not torch.allclose(before[:, t + 1 :], after[:, t + 1 :])


def test_targets_give_the_sum_and_the_count() -> None:
    model, idx, targets = tiny().eval(), tokens(2, 9), tokens(2, 9, seed=1)
    targets[1, 3:] = IGNORE
    loss, count = model(idx, targets)
    mean = F.cross_entropy(model(idx).flatten(0, 1), targets.flatten(), ignore_index=IGNORE)
    assert int(count) == 12
    torch.testing.assert_close(loss / count, mean)


def test_too_many_tokens_are_refused_with_both_numbers() -> None:
    with pytest.raises(UserError, match=r"17 tokens .* block_size 16"):
        tiny()(tokens(1, 17))
    assert tiny()(tokens(1, 16)).shape == (1, 16, 50)


def test_dropout_acts_in_training_only() -> None:
    model, plain, idx = tiny(dropout=0.3), tiny().eval(), tokens(2, 9)
    assert not torch.allclose(model(idx), model(idx))
    assert torch.equal(model.eval()(idx), plain(idx))


@pytest.mark.parametrize("part", ["stream", "mlp"])
def test_dropout_acts_on_the_embeddings_and_on_what_the_mlp_adds(part: str) -> None:
    model, seen = tiny(dropout=0.5), []
    block = model.transformer.h[0]
    if part == "mlp":
        block.mlp.register_forward_hook(lambda _, __, output: seen.append(output))
    else:
        block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(tokens(4, 16))
    assert 0.4 < float((seen[0] == 0).float().mean()) < 0.6
    model.eval()(tokens(4, 16))
    assert float((seen[1] == 0).float().mean()) == 0


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradient_checkpointing_changes_no_number(dropout: float) -> None:
    results, visits = [], []
    for switch in (False, True):
        model = tiny(dropout=dropout)
        model.transformer.gradient_checkpointing = switch
        calls: list[int] = []
        model.transformer.h[0].register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        torch.manual_seed(5)
        loss, _ = model(tokens(2, 9), tokens(2, 9, seed=1))
        loss.backward()
        results.append((loss, {name: p.grad for name, p in model.named_parameters()}))
        visits.append(len(calls))
    assert visits == [1, 2]  # the block is computed again in the backward pass
    torch.testing.assert_close(*results, atol=0, rtol=0)


def test_a_batch_can_be_learned_by_heart() -> None:
    torch.manual_seed(0)
    model = GPT(TINY)
    idx = tokens(4, 17)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(120):
        loss, count = model(idx[:, :-1], idx[:, 1:])
        optimiser.zero_grad()
        (loss / count).backward()
        optimiser.step()
        losses.append(float(loss.detach() / count))
    assert 3.8 < losses[0] < 4.1  # ln 50 = 3.91: every token equally likely
    assert losses[-1] < 0.1


def test_without_biases_there_are_none() -> None:
    assert not [name for name, _ in tiny(bias=False).named_parameters() if name.endswith("bias")]
    assert tiny(bias=False)(tokens(1, 3)).shape == (1, 3, 50)


# ── how far a model sees ────────────────────────────────────────────────────────────────────────


def seen_from_the_end(T: int, **changes: object) -> list[int]:
    """Return how far back the tokens lie that the last logits depend on, by their gradient."""
    model = GPT(TINY.replace(block_size=T, n_head=2, position="none", **changes)).eval()
    randomise(model, embedding_std=1.0)
    model.double()  # what reached through many layers is small
    leaves: list[Tensor] = []

    def keep(_: object, __: object, output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[-1]

    model.transformer.wte.register_forward_hook(keep)
    model(tokens(1, T))[0, -1].square().sum().backward()
    assert leaves[0].grad is not None
    seen = leaves[0].grad[0].abs().sum(-1) > 0  # (T,)
    return [T - 1 - position for position in seen.nonzero().flatten().tolist()][::-1]


@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize(("n_layer", "window"), [(1, 1), (1, 4), (2, 3), (3, 1), (3, 4), (4, 2)])
def test_the_receptive_field_grows_by_a_window_a_layer(
    n_layer: int, window: int, blocks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_attention, "SMALLEST_BLOCK", 2)
    if not blocks:
        monkeypatch.setattr(attention, "kernel_for", lambda q, mask, dropout: attention.eager)
    field = n_layer * (window - 1) + 1
    assert seen_from_the_end(16, n_layer=n_layer, window=window) == list(range(field))


def test_the_receptive_field_of_dilated_and_mixed_windows() -> None:
    far = seen_from_the_end(40, n_layer=2, window=4, dilation=3)
    assert far == [3 * step for step in range(2 * 3 + 1)]  # only every third position
    assert seen_from_the_end(40, n_layer=2, window=(3, 5)) == list(range(2 + 4 + 1))
    mixed = seen_from_the_end(40, n_layer=2, window=3, dilation=((1, 4),))
    assert max(mixed) == 2 * 2 * 4
    assert set(range(5)) | {8, 12} <= set(mixed)


def test_global_tokens_are_seen_from_everywhere() -> None:
    assert seen_from_the_end(40, n_layer=1, window=3, global_tokens=(5,)) == [0, 1, 2, 34]
    # In two layers what the global token had seen comes through it: positions 0 to 5.
    assert seen_from_the_end(40, n_layer=2, window=3, global_tokens=(5,)) == [
        *range(5),
        *range(34, 40),
    ]


# ── parts left out ──────────────────────────────────────────────────────────────────────────────


def test_without_blocks_a_model_knows_the_last_token_only() -> None:
    model = tiny(n_layer=0, without=("layer_norm",), position="none", tie_weights=False).eval()
    assert [name for name, _ in model.named_parameters()] == [
        "transformer.wte.weight",
        "lm_head.weight",
    ]
    idx = tokens(2, 9)
    table = model.transformer.wte.weight @ model.lm_head.weight.T  # (V, V): one row a token
    torch.testing.assert_close(model(idx), table[idx])


@pytest.mark.parametrize("n_layer", [0, 1])
def test_a_model_starts_and_trains_with_few_layers(n_layer: int) -> None:
    loss, count = GPT(TINY.replace(n_layer=n_layer))(tokens(2, 9), tokens(2, 9, seed=1))
    (loss / count).backward()
    assert 3.7 < float(loss.detach() / count) < 4.1  # ln 50 = 3.91


PARTS = ("mlp", "residual", "layer_norm")
SUBSETS = [(), *((part,) for part in PARTS), PARTS[:2], PARTS[1:], PARTS]


@pytest.mark.parametrize("without", SUBSETS)
def test_a_block_computes_what_is_left_of_it(without: tuple[str, ...]) -> None:
    model = tiny(without=without, bias=False).eval()
    block, x = model.transformer.h[0], torch.randn(2, 9, 24)

    def stage(x: Tensor, norm: str, part: nn.Module) -> Tensor:
        normed = x if "layer_norm" in without else getattr(block, norm)(x)
        y = part(normed, identity) if norm == "ln_1" else part(normed)
        return y if "residual" in without else x + y

    wanted = stage(x, "ln_1", block.attn)
    if "mlp" not in without:
        wanted = stage(wanted, "ln_2", block.mlp)
    torch.testing.assert_close(block(x, identity), wanted)
    names = {name.split(".")[0] for name, _ in block.named_parameters()}
    assert ("mlp" in names) == ("mlp" not in without)
    assert ("ln_1" in names) == ("layer_norm" not in without)
    assert ("ln_2" in names) == ("mlp" not in without and "layer_norm" not in without)
    stream = torch.randn(2, 9, 24)
    assert torch.equal(model.transformer.ln_f(stream), stream) == ("layer_norm" in without)


def test_every_part_is_used_and_each_one_left_out_shows() -> None:
    idx, results = tokens(2, 9), []
    for without in SUBSETS:
        model = tiny(without=without)
        logits = model(idx)
        logits.square().sum().backward()
        assert all(bool((p.grad != 0).any()) for p in model.parameters() if p.grad is not None)
        assert not [name for name, p in model.named_parameters() if p.grad is None]
        results.append(logits.detach())
    for i, one in enumerate(results):
        assert all(not torch.allclose(one, other) for other in results[:i])


def test_rotated_shared_windowed_heads_learn_a_batch_by_heart() -> None:
    torch.manual_seed(0)
    fields = {"position": "rope", "n_kv_head": 1, "window": 4, "global_tokens": (0,)}
    model, idx = GPT(TINY.replace(**fields)), tokens(4, 17)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(50):
        loss, count = model(idx[:, :-1], idx[:, 1:])
        optimiser.zero_grad()
        (loss / count).backward()
        optimiser.step()
    assert float(loss.detach() / count) < 1.0
