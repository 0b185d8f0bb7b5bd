"""Documents that share a row: each is read as if it stood alone."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers_twin import randomise

from gpt2lib.config import DataConfig, GPTConfig
from gpt2lib.data import batch, document_ids, eval_batches, masking_eot, prepare
from gpt2lib.data.sources import corpus_from_texts
from gpt2lib.model import attention, masks
from gpt2lib.model.gpt import GPT
from gpt2lib.model.masks import Causal, GlobalTokens, PerDocument, SlidingWindow, materialise
from gpt2lib.model.positions import positions_in
from gpt2lib.training.evaluation import score
from gpt2lib.utils.errors import UserError

EOT = 7
TINY = GPTConfig(vocab_size=50, block_size=64, n_layer=2, n_head=4, n_embd=32)
LENGTHS = (9, 1, 14, 6)  # the first is what is left of a document that the row's start has cut
SHAPES = {
    "learned": {},
    "rope": {"position": "rope"},
    "none": {"position": "none"},
    "shared": {"position": "rope", "n_kv_head": 2},
    "one key": {"n_kv_head": 1},
    "window": {"window": 3},
    "mixed": {"window": (3, None), "position": "rope", "n_kv_head": 1},
    "dilated": {"window": 4, "dilation": ((1, 1, 2, 3),)},
    "global": {"window": 3, "global_tokens": (0, 5), "n_kv_head": 2},
    "partial": {"without": ("mlp",)},
}


def made(**changes: object) -> GPT:
    torch.manual_seed(0)
    model = GPT(TINY.replace(**changes)).eval()
    randomise(model, embedding_std=0.5)
    return model


def row(lengths: tuple[int, ...] = LENGTHS, seed: int = 0) -> Tensor:
    """Return one row of documents, (1, T); all but the first begin with end-of-text."""
    generator = torch.Generator().manual_seed(seed)
    idx = torch.randint(EOT + 1, 50, (1, sum(lengths)), generator=generator)
    for begin in torch.tensor(lengths).cumsum(0)[:-1]:
        idx[0, begin] = EOT
    return idx


def two_rows() -> Tensor:
    """Return two rows that are cut at different positions, (2, T)."""
    return torch.cat((row(), row((1, 20, 2, 7), seed=1)))


# ── what a document is ──────────────────────────────────────────────────────────────────────────


def test_an_end_of_text_begins_a_document() -> None:
    idx = torch.tensor([[EOT, 1, 2, EOT, EOT, 3], [1, 2, 3, 4, 5, EOT]])
    ids = document_ids(idx, EOT)
    assert ids.tolist() == [[1, 1, 1, 2, 3, 3], [0, 0, 0, 0, 0, 1]]
    assert positions_in(ids).tolist() == [[0, 1, 2, 0, 0, 1], [0, 1, 2, 3, 4, 0]]


def test_positions_count_from_the_nearest_beginning() -> None:
    ids = document_ids(two_rows(), EOT)
    for numbers, positions in zip(ids.tolist(), positions_in(ids).tolist(), strict=True):
        for t, position in enumerate(positions):
            assert position == t - numbers.index(numbers[t])


@pytest.mark.parametrize(
    "mask",
    [
        Causal(),
        Causal() & SlidingWindow(3),
        Causal() & (SlidingWindow(2, (1, 3)) | GlobalTokens((1,))),
    ],
)
def test_the_mask_is_made_of_the_masks_of_each_document(mask: object) -> None:
    ids = document_ids(two_rows(), EOT)
    at = torch.arange(ids.size(1))
    seen = materialise(PerDocument(mask, ids, positions_in(ids)), at, at, n_head=2, n_row=2)
    seen = seen.expand(2, 2, -1, -1)  # (B, nh, T, T)
    for b, numbers in enumerate(ids.tolist()):
        for h in range(2):
            for q in range(len(numbers)):
                for k in range(len(numbers)):
                    first = numbers.index(numbers[q])
                    where = (torch.tensor(n) for n in (b, h, q - first, k - first))
                    alone = numbers[k] == numbers[q] and bool(mask(*where))
                    assert bool(seen[b, h, q, k]) == alone, (b, h, q, k)


# ── the same numbers as alone ───────────────────────────────────────────────────────────────────


def alone(model: GPT, idx: Tensor) -> Tensor:
    """Return the logits of one row, (1, T, V), each document by a call of its own."""
    _, lengths = document_ids(idx, EOT)[0].unique_consecutive(return_counts=True)
    return torch.cat([model(part) for part in idx.split(lengths.tolist(), dim=1)], dim=1)


@pytest.mark.parametrize("form", ["eager", "fused", "chosen"])
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_are_those_of_each_document_alone(
    shape: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if form != "chosen":
        kernel = getattr(attention, form)
        monkeypatch.setattr(attention, "kernel_for", lambda q, mask, dropout: kernel)
    model, idx = made(**SHAPES[shape]).double(), two_rows()
    with torch.no_grad():
        packed = model(idx, documents=document_ids(idx, EOT))
        wanted = torch.cat([alone(model, one) for one in idx.split(1)])
        across = model(idx)
    torch.testing.assert_close(packed, wanted, atol=1e-9, rtol=1e-9)
    assert not torch.allclose(across, wanted, atol=1e-3)


@pytest.mark.parametrize("shape", ["learned", "rope", "window"])
def test_logits_are_those_of_each_document_alone_in_bf16(shape: str) -> None:
    model, idx = made(**SHAPES[shape]), two_rows()
    with torch.no_grad():
        wanted = torch.cat([alone(model, one) for one in idx.split(1)])
        with torch.autocast("cpu", torch.bfloat16):
            packed, across = model(idx, documents=document_ids(idx, EOT)), model(idx)
    error = (packed - wanted).abs().mean()
    assert error < 0.02 * wanted.abs().mean()
    assert error < 0.1 * (across - wanted).abs().mean()


def test_one_document_a_row_changes_nothing() -> None:
    for shape in ("learned", "rope", "window", "global"):
        model, idx = made(**SHAPES[shape]).double(), row((30,))
        torch.testing.assert_close(model(idx, documents=document_ids(idx, EOT)), model(idx))


@pytest.mark.parametrize("shape", SHAPES)
def test_no_gradient_crosses_a_border(shape: str) -> None:
    model, idx = made(**SHAPES[shape]).double(), two_rows()
    leaves: list[Tensor] = []

    def keep(_: object, __: object, output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[-1]

    model.transformer.wte.register_forward_hook(keep)
    ids = document_ids(idx, EOT)
    logits = model(idx, documents=ids)
    for b in range(2):
        for number in ids[b].unique():
            inside = torch.zeros_like(ids, dtype=torch.bool)
            inside[b] = ids[b] == number
            total = logits[inside].square().sum()
            (gradient,) = torch.autograd.grad(total, leaves[0], retain_graph=True)
            moved = gradient.abs().sum(-1) > 0
            assert torch.equal(moved, inside)


@pytest.mark.parametrize("shape", ["learned", "rope", "mixed"])
def test_the_loss_of_a_row_is_the_sum_of_its_documents(shape: str) -> None:
    model, idx = made(**SHAPES[shape]).double(), row()
    inputs, targets = idx[:, :-1], idx[:, 1:]
    loss, count = model(inputs, targets, document_ids(inputs, EOT))
    begins = [0, *torch.tensor(LENGTHS).cumsum(0)[:-1].tolist(), idx.size(1) - 1]
    parts = [
        # A document with the end-of-text that follows it, its last target.
        model(idx[:, first:end], idx[:, first + 1 : end + 1])
        for first, end in pairwise(begins)
    ]
    torch.testing.assert_close(loss, sum(part[0] for part in parts))
    assert int(count) == sum(int(part[1]) for part in parts) == idx.size(1) - 1
    assert not torch.isclose(loss, model(inputs, targets)[0])


# ── what it costs ───────────────────────────────────────────────────────────────────────────────


def test_layers_with_the_same_mask_share_one_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        masks, "materialise", lambda *args: asked.append(args[0]) or materialise(*args)
    )
    idx = row()
    for window, wanted in ((None, 1), (3, 1), ((3, None), 2), ((3, None, 3, 4), 3)):
        model = made(n_layer=4, window=window)
        asked.clear()
        model(idx)
        assert not asked
        model(idx, documents=document_ids(idx, EOT))
        assert len(asked) == wanted


@pytest.mark.parametrize("every", [True, 2])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradient_checkpointing_changes_no_number(dropout: float, every: int) -> None:
    idx, results, visits = two_rows(), [], []
    for switch in (False, every):
        model = made(dropout=dropout, n_layer=3, window=(3, None, 3)).train()
        model.transformer.gradient_checkpointing = switch
        calls: list[int] = []
        for i, block in enumerate(model.transformer.h):
            block.register_forward_pre_hook(lambda *_, i=i, calls=calls: calls.append(i))
        torch.manual_seed(5)
        loss, _ = model(idx[:, :-1], idx[:, 1:], document_ids(idx[:, :-1], EOT))
        loss.backward()
        results.append((loss, {name: p.grad for name, p in model.named_parameters()}))
        visits.append([calls.count(i) for i in range(3)])
    assert visits == [[1, 1, 1], [2, 2, 2] if every is True else [2, 1, 2]]
    torch.testing.assert_close(*results, atol=0, rtol=0)


def test_a_compiled_model_needs_no_break() -> None:
    model, idx = made(position="rope", window=(3, None)), two_rows()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    ids = document_ids(idx, EOT)
    with torch.no_grad():
        torch.testing.assert_close(compiled(idx, documents=ids), model(idx, documents=ids))


# ── the data ────────────────────────────────────────────────────────────────────────────────────


def test_a_tokenizer_without_end_of_text_is_refused(tmp_path: Path) -> None:
    corpus = corpus_from_texts(["to be", "or not"], val_fraction=0.0)
    config = DataConfig(tokenizer="char", mask_documents=True)
    tokenizer = prepare(config, tmp_path / "char", progress=False, corpus=corpus).tokenizer
    with pytest.raises(UserError, match="needs an end-of-text token, and a char tokenizer") as info:
        masking_eot(config, tokenizer)
    assert "\n" not in str(info.value)
    assert masking_eot(config.replace(mask_documents=False), tokenizer) is None


def test_an_evaluation_can_stay_inside_documents(tmp_path: Path) -> None:
    corpus = corpus_from_texts(["to be or not to be", "that is", "the question"], val_fraction=0.0)
    config = DataConfig(vocab_size=257, mask_documents=True)
    data = prepare(config, tmp_path / "bytes", progress=False, corpus=corpus)
    eot = masking_eot(config, data.tokenizer)
    assert eot == data.tokenizer.eot is not None
    model = GPT(TINY.replace(vocab_size=257)).eval()
    randomise(model, embedding_std=0.5)
    total = 0.0
    for idx, targets in eval_batches(data.train, 16, 1):
        kept = idx[:, : int((targets != -1).sum())]
        logits = alone_with(model, kept, eot)
        total += float(
            torch.nn.functional.cross_entropy(
                logits[0], targets[0, : kept.size(1)], reduction="sum"
            )
        )
    scores = score(model, data.train, 16, batch_size=2, eot=eot)
    assert scores["loss"] * scores["tokens"] == pytest.approx(total, rel=1e-5)
    assert scores["loss"] != pytest.approx(score(model, data.train, 16)["loss"], rel=1e-3)


def alone_with(model: GPT, idx: Tensor, eot: int) -> Tensor:
    _, lengths = document_ids(idx, eot)[0].unique_consecutive(return_counts=True)
    with torch.no_grad():
        return torch.cat([model(part) for part in idx.split(lengths.tolist(), dim=1)], dim=1)


def test_filling_at_the_end_of_a_row_changes_nothing(tmp_path: Path) -> None:
    corpus = corpus_from_texts(["to be", "or not"], val_fraction=0.0)
    data = prepare(DataConfig(vocab_size=257), tmp_path / "b", progress=False, corpus=corpus)
    eot, n = data.tokenizer.eot, len(data.train)
    model = made(vocab_size=257).double()
    idx, targets = batch(data.train, [0], n + 9)
    loss, count = model(idx, targets, document_ids(idx, eot))
    short = batch(data.train, [0], n - 1)
    torch.testing.assert_close(loss, model(*short, document_ids(short[0], eot))[0])
    assert int(count) == n - 1
