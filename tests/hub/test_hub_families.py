"""Every attention that transformers can compute, both ways; every other one refused in a line."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_helpers import change_config, change_tensors, refused
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GPTBigCodeConfig,
    GPTBigCodeForCausalLM,
    Starcoder2Config,
    Starcoder2ForCausalLM,
)
from transformers_twin import CHARACTERS, TINY, parity, patterns, randomise, variants

from gpt2lib.config import GPTConfig
from gpt2lib.generation.generator import generate
from gpt2lib.hub import export, load_pretrained, model_config
from gpt2lib.hub.families import FAMILIES, choose
from gpt2lib.hub.saving import save_model
from gpt2lib.model.gpt import GPT
from gpt2lib.model.surgery import extend_context
from gpt2lib.runs import checkpoint
from gpt2lib.tokenizer import train_bpe
from gpt2lib.utils import files as storage

ROPE = TINY.replace(position="rope", n_kv_head=2, window=5)
EACH: dict[str, GPTConfig] = {
    "gpt2": TINY,
    "gpt_bigcode": TINY.replace(n_kv_head=1),
    "starcoder2": ROPE,
}
SHAPE: dict[str, Any] = {"vocab_size": 32, "bos_token_id": None, "eos_token_id": None}


@pytest.fixture(autouse=True)
def no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of folders are written here; that they outlive a power cut is not the question."""
    monkeypatch.setattr(storage, "flush", lambda path: None)


def model(config: GPTConfig, embedding_std: float = 0.02) -> GPT:
    made = GPT(config).eval()
    randomise(made, embedding_std=embedding_std)
    return made


def exported(config: GPTConfig, folder: Path, embedding_std: float = 0.02) -> tuple[GPT, Path]:
    ours = model(config, embedding_std)
    save_model(ours, CHARACTERS, folder / "ours")
    return ours, export(folder / "ours", folder / "hf")


def theirs(family: str, **fields: Any) -> Any:
    """Return a random model of transformers, with fields that differ from its defaults."""
    made: Any
    if family == "starcoder2":
        shape = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 24}
        made = Starcoder2ForCausalLM(Starcoder2Config(**SHAPE | shape | heads | fields))
    else:
        shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 24}
        made = GPTBigCodeForCausalLM(GPTBigCodeConfig(**SHAPE | shape | fields))
    randomise(made)
    return made.eval()


def tokens(length: int = 24) -> Tensor:
    return torch.randint(32, (2, length), generator=torch.Generator().manual_seed(0))


def equal_to(ours: GPT, other: Any, atol: float = 1e-5) -> None:
    with torch.no_grad():
        idx = tokens()
        torch.testing.assert_close(ours(idx), other(idx).logits.float(), atol=atol, rtol=0)


def name(config: GPTConfig) -> str:
    scaled = "" if config.rope_scale == 1 else "-scaled"
    return f"{config.position}-{config.kv_heads}-{config.window}{scaled}"


@pytest.mark.parametrize("pattern", list(patterns()), ids=name)
def test_logits_are_equal_in_both_directions(pattern: GPTConfig, tmp_path: Path) -> None:
    for i, config in enumerate(variants(pattern)):
        found = parity(config, tmp_path / str(i))
        assert found.out < 1e-5 and found.back < 1e-5, (config, found)
        assert found.size > 0.1  # there was something to compare


@pytest.mark.parametrize(
    ("changes", "family"),
    [
        ({}, "gpt2"),
        ({"n_kv_head": 4}, "gpt2"),
        ({"n_kv_head": 2}, "gpt2"),
        ({"n_kv_head": 1}, "gpt_bigcode"),
        ({"n_kv_head": 1, "n_head": 1}, "gpt2"),
        ({"position": "none"}, "gpt2"),
        ({"position": "none", "n_kv_head": 1}, "gpt_bigcode"),
        ({"position": "rope"}, "starcoder2"),
        ({"position": "rope", "n_kv_head": 1, "window": 5}, "starcoder2"),
        ({"position": "rope", "window": (5, 5)}, "starcoder2"),
        # As wide as the block, a window is none, whatever goes with it.
        ({"window": 24}, "gpt2"),
        ({"window": (24, 30), "global_tokens": (3,)}, "gpt2"),
        ({"position": "rope", "window": (24, 99)}, "starcoder2"),
    ],
)
def test_the_class_is_chosen_by_what_it_computes(
    changes: dict[str, Any], family: str, tmp_path: Path
) -> None:
    config = TINY.replace(**changes)
    assert choose(config) == family
    assert parity(config, tmp_path).out < 1e-5
    assert json.loads((tmp_path / "exported" / "config.json").read_text())["model_type"] == family


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"window": 5}, "window 5 with position learned .* rope"),
        ({"window": 23}, "window 23 with position learned .* rope"),
        ({"position": "none", "window": 5, "n_kv_head": 1}, "window 5 with position none .* rope"),
        ({"position": "rope", "window": (5, 9)}, r"window \(5, 9\), which differs .* one window"),
        ({"position": "rope", "window": (5, 24)}, r"window \(5, 24\), which differs .* one window"),
        ({"position": "rope", "window": 5, "dilation": 2}, "dilation 2 .* dilation 1"),
        ({"position": "rope", "window": 30, "dilation": ((1, 2),)}, r"dilation \(\(1, 2\),\)"),
        ({"position": "rope", "window": 5, "global_tokens": (0,)}, r"global_tokens \(0,\)"),
        ({"without": ("mlp",)}, "without mlp .* whole blocks"),
        ({"position": "rope", "without": ("residual", "layer_norm")}, "residual and layer_norm"),
        ({"n_layer": 0}, "n_layer 0 leaves no block .* n_layer 1"),
        ({"n_layer": 0, "position": "rope", "window": 5}, "n_layer 0 leaves no block .* n_layer 1"),
    ],
)
def test_what_no_class_computes_is_refused_with_the_reason(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    save_model(GPT(TINY.replace(**changes)), CHARACTERS, tmp_path / "ours")
    message = refused(said, export, tmp_path / "ours", tmp_path / "hf")
    assert "it can export" in message and not (tmp_path / "hf").exists()


def test_repeated_heads_come_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exported(TINY.replace(n_kv_head=2), tmp_path)
    assert "repeated for all 4 heads" in caplog.text and "2 times as large" in caplog.text
    caplog.clear()
    for i, config in enumerate(EACH.values()):
        exported(config, tmp_path / str(i))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("family", EACH)
def test_an_export_comes_back_as_the_same_configuration(family: str, tmp_path: Path) -> None:
    for i, config in enumerate(variants(EACH[family])):
        _, folder = exported(config, tmp_path / str(i))
        back = model_config(folder)
        assert back.replace(bias=config.bias) == config and back.bias  # zeros where there is none
    config = EACH[family].replace(position="rope", rope_base=500.0, rope_scale=1.5, window=None)
    _, folder = exported(config, tmp_path / "rope")
    assert model_config(folder) == config


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("family", EACH)
def test_greedy_tokens_equal_those_of_transformers(
    family: str, use_cache: bool, tmp_path: Path
) -> None:
    # Large embeddings and a head of its own: the likeliest tokens then differ by position.
    config = EACH[family].replace(tie_weights=False)
    ours, folder = exported(config, tmp_path, embedding_std=2.0)
    other = AutoModelForCausalLM.from_pretrained(folder)
    prompt = tokens(4)
    wanted = other.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        max_new_tokens=20,
        use_cache=use_cache,
        pad_token_id=0,
    )
    for cached in (True, False):
        assert generate(ours, prompt, 20, temperature=0, use_cache=cached).equal(wanted)
    assert len(set(wanted[0, 4:].tolist())) > 5


@pytest.mark.parametrize("family", EACH)
def test_shards_are_read_and_a_missing_one_is_named(family: str, tmp_path: Path) -> None:
    _, folder = exported(EACH[family], tmp_path)
    other = AutoModelForCausalLM.from_pretrained(folder)
    other.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    shards = sorted((tmp_path / "shards").glob("model-*.safetensors"))
    assert len(shards) > 2
    equal_to(load_pretrained(tmp_path / "shards"), other)
    shards[1].unlink()
    message = refused("is missing, one of", load_pretrained, tmp_path / "shards")
    assert shards[1].name in message and f"one of {len(shards)} files" in message


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", EACH)
def test_half_precision_is_read_as_it_is(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    _, folder = exported(EACH[family].replace(tie_weights=False), tmp_path)
    half = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    half.save_pretrained(tmp_path / "half")
    stored = load_file(tmp_path / "half" / checkpoint.MODEL)
    assert {t.dtype for t in stored.values()} == {dtype}
    ours = load_pretrained(tmp_path / "half")
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    # They round each step by 2^-9 or 2^-12, on the way to logits of 4; with the same weights in
    # float32 nothing is left.
    equal_to(ours, half, atol=0.15 if dtype == torch.bfloat16 else 0.02)
    equal_to(ours, AutoModelForCausalLM.from_pretrained(tmp_path / "half", dtype=torch.float32))


@pytest.mark.parametrize("family", EACH)
def test_what_belongs_to_a_model_is_exported_with_it(family: str, tmp_path: Path) -> None:
    text = "to be, or not to be. " * 9
    bpe = train_bpe([text], 270)
    config = EACH[family].replace(vocab_size=bpe.vocab_size)
    save_model(model(config), bpe, tmp_path / "ours")
    folder = export(tmp_path / "ours", tmp_path / "hf")
    names = {"config.json", "generation_config.json", "model.safetensors", "README.md"}
    assert names < {p.name for p in folder.iterdir()}
    assert not list(folder.glob("*.bin")) and not list(folder.glob("*.py"))
    generation = GenerationConfig.from_pretrained(folder)
    eot = bpe.eot
    assert eot is not None and generation.pad_token_id == eot
    assert (generation.bos_token_id, generation.eos_token_id) == (eot, eot)
    assert generation.max_length == 24
    read = AutoConfig.from_pretrained(folder)
    assert (read.bos_token_id, read.eos_token_id, read.pad_token_id) == (eot, eot, None)
    assert AutoTokenizer.from_pretrained(folder)(text).input_ids == bpe.encode(text)
    other = AutoModelForCausalLM.from_pretrained(folder)
    length = other.generate(torch.tensor([bpe.encode("to")]), do_sample=False).size(1)
    assert 1 < length <= 24


@pytest.mark.parametrize("family", EACH)
def test_every_field_is_one_that_transformers_knows(family: str, tmp_path: Path) -> None:
    _, folder = exported(EACH[family].replace(dropout=0.25), tmp_path)
    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    known = AutoConfig.for_model(family).to_dict()
    assert written.keys() - known.keys() <= {"n_ctx"}  # the older name of n_positions
    read = AutoConfig.from_pretrained(folder).to_dict()
    assert {key: read[key] for key in written} == written
    dropouts = [key for key in known if "drop" in key and not key.startswith("summary")]
    assert len(dropouts) == 3 and {read[key] for key in dropouts} == {0.25}


@pytest.mark.parametrize("position", ["rope", "none"])
def test_a_shorter_block_keeps_every_weight_where_positions_have_none(
    position: Any, tmp_path: Path
) -> None:
    whole = model(TINY.replace(position=position, window=5, n_kv_head=2))
    save_model(whole, CHARACTERS, tmp_path / "ours")
    short = load_pretrained(tmp_path / "ours", block_size=9)
    assert short.config == whole.config.replace(block_size=9)
    mine, yours = short.state_dict(), whole.state_dict()
    assert mine.keys() == yours.keys() and all(torch.equal(mine[k], yours[k]) for k in mine)
    idx = tokens(9)
    torch.testing.assert_close(short(idx), whole(idx), atol=1e-6, rtol=0)
    refused("block_size 9", short, tokens(10))


def test_an_extended_context_is_exported(tmp_path: Path) -> None:
    for i, method in enumerate(("linear", "ntk")):
        longer = extend_context(model(ROPE), 48, method)
        save_model(longer, CHARACTERS, tmp_path / f"ours-{i}")
        other = AutoModelForCausalLM.from_pretrained(
            export(tmp_path / f"ours-{i}", tmp_path / f"hf-{i}")
        )
        with torch.no_grad():
            idx = tokens(48)
            torch.testing.assert_close(longer(idx), other(idx).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_silent_file_means_what_it_means_in_transformers(family: str) -> None:
    silent = FAMILIES[family].read_config({"model_type": family})
    full = AutoConfig.for_model(family).to_dict()
    assert FAMILIES[family].read_config(full) == silent


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("gpt_bigcode", {"multi_query": False}),
        ("gpt_bigcode", {"activation_function": "gelu", "tie_word_embeddings": False}),
        ("starcoder2", {"use_bias": False}),
        ("starcoder2", {"num_key_value_heads": 4, "sliding_window": 3, "hidden_act": "gelu_new"}),
        ("starcoder2", {"rope_parameters": {"rope_type": "default", "rope_theta": 300.0}}),
        (
            "starcoder2",
            {"rope_parameters": {"rope_type": "linear", "rope_theta": 300.0, "factor": 3.0}},
        ),
    ],
)
def test_other_models_of_a_family_are_read(
    family: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    other = theirs(family, **fields)
    other.save_pretrained(tmp_path)
    equal_to(load_pretrained(tmp_path), other)


def test_the_rope_fields_of_transformers_4_are_read(tmp_path: Path) -> None:
    rope = {"rope_type": "linear", "rope_theta": 300.0, "factor": 3.0}
    other = theirs("starcoder2", rope_parameters=rope)
    other.save_pretrained(tmp_path)
    change_config(tmp_path, rope_parameters=None, rope_theta=300.0)
    change_config(tmp_path, rope_scaling={"type": "linear", "factor": 3.0})
    equal_to(load_pretrained(tmp_path), other)


def test_a_starcoder2_without_head_has_names_without_model(tmp_path: Path) -> None:
    other = theirs("starcoder2")
    other.model.save_pretrained(tmp_path)
    assert not any(n.startswith("model.") for n in load_file(tmp_path / checkpoint.MODEL))
    change_tensors(tmp_path, lambda ts: ts | {"layers.0.rotary_emb.inv_freq": torch.ones(4)})
    equal_to(load_pretrained(tmp_path), other)


@pytest.mark.parametrize(
    ("family", "field", "value"),
    [
        ("gpt_bigcode", "activation_function", "relu"),
        ("gpt_bigcode", "layer_norm_epsilon", 1e-6),
        ("gpt_bigcode", "scale_attn_weights", False),
        ("gpt_bigcode", "add_cross_attention", True),
        ("gpt_bigcode", "multi_query", "no"),
        ("gpt_bigcode", "n_inner", 48),
        ("starcoder2", "hidden_act", "silu"),
        ("starcoder2", "norm_epsilon", 1e-6),
        ("starcoder2", "use_bias", "no"),
        ("starcoder2", "intermediate_size", 96),
        ("starcoder2", "head_dim", 16),
        ("starcoder2", "partial_rotary_factor", 0.5),
        ("starcoder2", "rope_parameters", {"rope_type": "yarn", "factor": 2.0}),
        ("starcoder2", "rope_scaling", {"type": "dynamic", "factor": 2.0}),
        ("starcoder2", "rope_parameters", {"rope_type": "linear"}),
        ("starcoder2", "rope_parameters", {"full_attention": {"rope_theta": 1e4}}),
        ("starcoder2", "sliding_window", 0),
        ("starcoder2", "num_key_value_heads", 3),
        ("starcoder2", "quantization_config", {"bits": 4}),
        ("starcoder2", "auto_map", {"AutoModelForCausalLM": "modeling.Mine"}),
    ],
)
def test_fields_without_counterpart_are_refused(
    family: str, field: str, value: Any, tmp_path: Path
) -> None:
    theirs(family).save_pretrained(tmp_path)
    change_config(tmp_path, **{field: value})
    ours = {"sliding_window": "window", "num_key_value_heads": "n_kv_head"}
    message = refused(ours.get(field, field), load_pretrained, tmp_path)
    assert "config.json" in message


def test_tensors_that_are_missing_or_do_not_fit_are_named(tmp_path: Path) -> None:
    q, k = (f"model.layers.1.self_attn.{part}.weight" for part in ("q_proj", "k_proj"))
    fc = "model.layers.0.mlp.c_fc.weight"
    cases: list[tuple[str, dict[str, Tensor | None]]] = [
        (rf"{k} has shape \(8, 32\), but the model needs \(16, 32\)", {k: torch.ones(8, 32)}),
        (rf"{k} is missing", {k: None}),
        (rf"{q} is missing", {q: None}),
        (r"c_fc.weight has shape \(128, 8\).*needs \(128, 32\)", {fc: torch.ones(128, 8)}),
        ("lacks 2 of .* 'transformer.h.0.mlp.c_fc.weight'", {fc: None}),  # and its bias of zeros
        ("'model.score.weight' that the model has no place", {"score.weight": torch.ones(2)}),
    ]
    for i, (said, changes) in enumerate(cases):
        theirs("starcoder2", use_bias=False).save_pretrained(tmp_path / str(i))
        wanted = {key: value for key, value in changes.items() if value is not None}
        gone = changes.keys() - wanted.keys()
        change_tensors(
            tmp_path / str(i),
            lambda ts, w=wanted, g=gone: {key: t for key, t in (ts | w).items() if key not in g},
        )
        refused(said, load_pretrained, tmp_path / str(i))
    theirs("gpt_bigcode", multi_query=False).save_pretrained(tmp_path / "shared")
    change_config(tmp_path / "shared", multi_query=True)
    said = r"c_attn.bias has shape \(96,\) in .*, but the model needs \(48,\)"
    refused(said, load_pretrained, tmp_path / "shared")
