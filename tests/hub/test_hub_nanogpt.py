"""nanoGPT's checkpoints: equal logits, no pickled code, and whose tokenizer it is."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_helpers import refused
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from gpt2lib.hub import (
    export,
    load_pretrained,
    load_tokenizer_for,
    model_config,
    resolve,
    tokenizer_folder,
)
from gpt2lib.tokenizer import CharTokenizer, gpt2_tokenizer

ARGS = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 12, "vocab_size": 40}


class Norm(nn.Module):
    """A layer norm whose bias may be missing."""

    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        y = (x - mean) / (variance + 1e-5).sqrt() * self.weight
        return y if self.bias is None else y + self.bias


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.c_attn = nn.Linear(width, 3 * width, bias=bias)
        self.c_proj = nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        T, size = x.size(1), x.size(2) // self.heads
        ahead = torch.ones(T, T, dtype=torch.bool).triu(1)
        found = []
        for head in range(self.heads):  # one after the other
            q, k, v = (
                part[..., head * size : (head + 1) * size]
                for part in self.c_attn(x).chunk(3, dim=-1)
            )
            scores = (q @ k.transpose(1, 2) / size**0.5).masked_fill(ahead, -torch.inf)
            found.append(scores.softmax(-1) @ v)
        return self.c_proj(torch.cat(found, dim=-1))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, bias: bool, act: Callable[..., Tensor]) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = Norm(width, bias), Norm(width, bias)
        self.attn = Attention(width, heads, bias)
        self.mlp = nn.ModuleDict(
            {
                "c_fc": nn.Linear(width, 4 * width, bias=bias),
                "c_proj": nn.Linear(4 * width, width, bias=bias),
            }
        )
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp["c_proj"](self.act(self.mlp["c_fc"](self.ln_2(x))))


class Nano(nn.Module):
    """A model that computes what nanoGPT's does, under the same names."""

    def __init__(
        self,
        *,
        bias: bool = True,
        tied: bool = True,
        act: Callable[..., Tensor] = F.gelu,
        **args: Any,
    ) -> None:
        super().__init__()
        width, heads = args["n_embd"], args["n_head"]
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(args["vocab_size"], width),
                "wpe": nn.Embedding(args["block_size"], width),
                "h": nn.ModuleList(Block(width, heads, bias, act) for _ in range(args["n_layer"])),
                "ln_f": Norm(width, bias),
            }
        )
        self.lm_head = nn.Linear(width, args["vocab_size"], bias=False)
        if tied:
            self.transformer["wte"].weight = self.lm_head.weight
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in self.parameters():
                p.normal_(std=0.5, generator=generator)

    def forward(self, idx: Tensor) -> Tensor:
        x = self.transformer["wte"](idx) + self.transformer["wpe"].weight[: idx.size(1)]
        for block in self.transformer["h"]:
            x = block(x)
        return self.lm_head(self.transformer["ln_f"](x))


def save(path: Path, model: nn.Module, args: dict[str, Any], prefix: str = "") -> Path:
    """Write a checkpoint with what nanoGPT's training script puts in."""
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, 2, dtype=torch.long)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    content = {
        "model": {f"{prefix}{name}": t for name, t in model.state_dict().items()},
        "optimizer": optimizer.state_dict(),
        "model_args": args,
        "iter_num": 2000,
        "best_val_loss": torch.tensor(1.47),
        "config": {"dataset": "shakespeare_char", "device": "cpu", "bias": False},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def nano(path: Path, *, prefix: str = "", bias: bool = True, **args: Any) -> Nano:
    shape = ARGS | args
    model = Nano(bias=bias, **shape)
    save(path, model, {**shape, "bias": bias, "dropout": 0.2}, prefix)
    return model


def tokens(vocab_size: int = 40) -> Tensor:
    return torch.randint(vocab_size, (3, 12), generator=torch.Generator().manual_seed(0))


def equal(ours: nn.Module, theirs: nn.Module, vocab_size: int = 40) -> None:
    with torch.no_grad():
        idx = tokens(vocab_size)
        torch.testing.assert_close(ours(idx), theirs(idx), atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("prefix", ["", "_orig_mod."])  # the second: from a compiled model
def test_logits_are_those_of_the_model_that_wrote_it(
    prefix: str, bias: bool, tmp_path: Path
) -> None:
    theirs = nano(tmp_path / "out" / "ckpt.pt", prefix=prefix, bias=bias)
    for source in (tmp_path / "out", tmp_path / "out" / "ckpt.pt", str(tmp_path / "out/ckpt.pt")):
        ours = load_pretrained(source)
        equal(ours, theirs)
        assert resolve(source) == tmp_path / "out" / "ckpt.pt"
    config = ours.config
    assert (config.bias, config.gelu, config.tie_weights, config.dropout) == (
        bias,
        "exact",
        True,
        0.2,
    )
    assert model_config(tmp_path / "out") == config and not ours.training
    assert ours.lm_head.weight.data_ptr() == ours.transformer.wte.weight.data_ptr()
    assert load_pretrained(tmp_path / "out", block_size=5, dropout=0.0).config.block_size == 5


def test_the_gelu_matters(tmp_path: Path) -> None:
    theirs = nano(tmp_path / "ckpt.pt")
    other = load_pretrained(tmp_path)
    for block in other.transformer.h:
        block.mlp.approximate = "tanh"
    with torch.no_grad():
        assert (other(tokens()) - theirs(tokens())).abs().max() > 1e-4


def test_the_first_checkpoints_had_the_tanh_form_and_no_bias_field(tmp_path: Path) -> None:
    for tied in (True, False):
        theirs = Nano(tied=tied, act=lambda x: F.gelu(x, approximate="tanh"), **ARGS)
        theirs.register_buffer("mask", torch.ones(1, 1, 12, 12).tril(), persistent=False)
        path = save(tmp_path / f"{tied}.pt", theirs, dict(ARGS))
        content = torch.load(path, weights_only=True)
        content["model"]["transformer.h.0.attn.bias"] = torch.ones(1, 1, 12, 12).tril()
        torch.save(content, path)
        ours = load_pretrained(path)
        equal(ours, theirs)
        assert (ours.config.gelu, ours.config.tie_weights) == ("tanh", tied)


def test_it_is_exported_with_the_exact_gelu(tmp_path: Path) -> None:
    theirs = nano(tmp_path / "out" / "ckpt.pt")
    CharTokenizer("0123456789abcdefghijklmnopqrstuvwxyz .,!").save(tmp_path / "out")
    folder = export(tmp_path / "out", tmp_path / "hf")
    other = AutoModelForCausalLM.from_pretrained(folder)
    assert other.config.activation_function == "gelu"
    with torch.no_grad():
        torch.testing.assert_close(other(tokens()).logits, theirs(tokens()), atol=1e-5, rtol=1e-6)
    equal(load_pretrained(folder), theirs)
    assert "is not known" in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("vocab_size", [50257, 50304])
def test_a_gpt2_vocabulary_means_gpt2s_tokenizer(vocab_size: int, tmp_path: Path) -> None:
    theirs = nano(tmp_path / "ckpt.pt", vocab_size=vocab_size)
    assert load_tokenizer_for(tmp_path).fingerprint == gpt2_tokenizer().fingerprint
    assert str(tokenizer_folder(tmp_path)) == "gpt2"
    ours = load_pretrained(tmp_path)
    assert ours.config.vocab_size == vocab_size  # the ids that never occur stay
    equal(ours, theirs, vocab_size)


def test_another_vocabulary_has_no_tokenizer_until_one_is_put_beside_it(tmp_path: Path) -> None:
    nano(tmp_path / "ckpt.pt")
    (tmp_path / "meta.pkl").write_bytes(pickle.dumps({"itos": {0: "a"}}))
    for call in (load_tokenizer_for, tokenizer_folder):
        message = refused("40 tokens are not GPT-2's", call, tmp_path)
        assert "meta.pkl" in message and "CharTokenizer(characters).save" in message
    characters = CharTokenizer("0123456789abcdefghijklmnopqrstuvwxyz .,!")
    characters.save(tmp_path)
    assert load_tokenizer_for(tmp_path / "ckpt.pt").fingerprint == characters.fingerprint
    CharTokenizer(map(chr, range(50, 91))).save(tmp_path)
    refused("has 41 tokens, but its model knows 40", load_tokenizer_for, tmp_path)


class Code:
    """What unpickling would run."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (Path.touch, (self.trace,))


def test_no_pickled_code_is_run(tmp_path: Path) -> None:
    nano(tmp_path / "ckpt.pt")
    content = torch.load(tmp_path / "ckpt.pt", weights_only=True)
    torch.save({**content, "config": Code(tmp_path / "ran")}, tmp_path / "ckpt.pt")
    for call in (load_pretrained, model_config, load_tokenizer_for):
        message = refused("which is neither a tensor nor a plain value", call, tmp_path)
        assert "ckpt.pt" in message and "could run code" in message
    assert not (tmp_path / "ran").exists()


def test_what_is_no_checkpoint_of_nanogpt_is_refused(tmp_path: Path) -> None:
    model = Nano(**ARGS)
    good = {"model": model.state_dict(), "model_args": {**ARGS, "bias": True, "dropout": 0.0}}
    args, weights = good["model_args"], good["model"]
    fc = "transformer.h.1.mlp.c_fc.weight"
    cases: list[tuple[str, Any]] = [
        ("lacks 'model' or 'model_args'", weights),
        ("lacks 'model' or 'model_args'", [1, 2]),
        ("lacks 'model' or 'model_args'", {**good, "model": [1]}),
        ("model_args lacks 'n_head'", {**good, "model_args": _without(args, "n_head")}),
        ("model_args has 'n_kv_head'", {**good, "model_args": {**args, "n_kv_head": 1}}),
        ("n_embd 16 is not divisible by n_head 3", {**good, "model_args": {**args, "n_head": 3}}),
        ("lacks 1 of .*c_fc.weight", {**good, "model": _without(weights, fc)}),
        (
            r"c_fc.weight has shape \(2, 2\).*needs \(64, 16\)",
            {**good, "model": {**weights, fc: torch.ones(2, 2)}},
        ),
        ("c_fc.weight is no tensor but float", {**good, "model": {**weights, fc: 1.0}}),
        (
            "c_fc.weight in .* is torch.int64",
            {**good, "model": {**weights, fc: torch.ones(64, 16).long()}},
        ),
    ]
    for i, (said, content) in enumerate(cases):
        path = tmp_path / f"{i}.pt"
        torch.save(content, path)
        assert str(path) in refused(said, load_pretrained, path)
    for damaged in (b"", b"no pickle", (tmp_path / "0.pt").read_bytes()[:-99]):
        (tmp_path / "ckpt.pt").write_bytes(damaged)
        refused("ckpt.pt: damaged, or no file of torch.save", load_pretrained, tmp_path)
    refused("there is no folder", load_pretrained, tmp_path / "gone.pt")


def _without(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}
