"""To and from transformers: the same numbers both ways, and one clear line for what cannot be."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from hub_helpers import change_config, change_tensors, refused
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline
from transformers_twin import randomise, twins

from gpt2lib.config import GPTConfig
from gpt2lib.hub import (
    export,
    load_pretrained,
    load_tokenizer_for,
    model_config,
    resolve,
    tokenizer_folder,
)
from gpt2lib.hub import exporting as hub_exporting
from gpt2lib.model.gpt import GPT
from gpt2lib.model.weights import model_tensors
from gpt2lib.runs import checkpoint
from gpt2lib.tokenizer import CharTokenizer, Tokenizer, train_bpe
from gpt2lib.utils.files import atomic_folder

TEXT = "To be, or not to be: that is the question.\n\tWhether 'tis nobler — café, 日本 🙂  .\r\n"
TOKENIZERS: dict[str, Tokenizer] = {
    "bpe": train_bpe([TEXT * 3], 300),
    "char": CharTokenizer.train([TEXT]),
}
SMALL = GPTConfig(
    vocab_size=TOKENIZERS["bpe"].vocab_size, block_size=24, n_layer=2, n_head=2, n_embd=16
)


def ids(config: GPTConfig, length: int | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (2, length or config.block_size)
    return torch.randint(config.vocab_size, shape, generator=generator)


def save_ours(folder: Path, config: GPTConfig = SMALL, tokenizer: str = "bpe") -> GPT:
    """Write a checkpoint as the trainer does."""
    model = GPT(config.replace(vocab_size=TOKENIZERS[tokenizer].vocab_size)).eval()
    randomise(model)
    with atomic_folder(folder) as target:
        checkpoint.write_tensors(target / checkpoint.MODEL, model_tensors(model))
        checkpoint.write_model_config(target, model.config)
        TOKENIZERS[tokenizer].save(target / "tokenizer")
    return model


def save_theirs(folder: Path, config: GPTConfig = SMALL, **options: Any) -> Any:
    """Write a checkpoint as transformers does."""
    model = twins(config)[1]
    model.save_pretrained(folder, **options)
    TOKENIZERS["bpe"].save(folder)
    return model


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_an_export_computes_the_same_in_transformers(
    tmp_path: Path, tied: bool, bias: bool
) -> None:
    config = SMALL.replace(tie_weights=tied, bias=bias)
    ours = save_ours(tmp_path / "ours", config)
    folder = export(tmp_path / "ours", tmp_path / "hf")
    theirs, loading = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert type(theirs).__name__ == "GPT2LMHeadModel"
    assert not any(loading.values()), loading
    with torch.no_grad():
        idx = ids(config)
        torch.testing.assert_close(theirs(idx).logits, ours(idx), atol=1e-5, rtol=0)
    wte, head = theirs.transformer.wte.weight, theirs.lm_head.weight
    assert (wte.data_ptr() == head.data_ptr()) == tied
    stored = load_file(folder / checkpoint.MODEL)
    assert ("lm_head.weight" in stored) == (not tied)
    back = load_pretrained(folder)
    torch.testing.assert_close(back(idx), ours(idx), atol=1e-5, rtol=0)


@pytest.mark.parametrize("tied", [True, False])
def test_a_transformers_folder_computes_the_same_here(tmp_path: Path, tied: bool) -> None:
    theirs = save_theirs(tmp_path, SMALL.replace(tie_weights=tied))
    ours = load_pretrained(tmp_path)
    assert not ours.training and ours.config.tie_weights == tied
    idx = ids(SMALL)
    with torch.no_grad():
        torch.testing.assert_close(ours(idx), theirs(idx).logits, atol=1e-5, rtol=0)


def test_the_exported_config_says_what_the_model_is(tmp_path: Path) -> None:
    save_ours(tmp_path / "ours", SMALL.replace(dropout=0.25))
    folder = export(tmp_path / "ours", tmp_path / "hf")
    config = AutoModelForCausalLM.from_pretrained(folder).config
    eot = TOKENIZERS["bpe"].eot
    assert eot is not None and (config.bos_token_id, config.eos_token_id) == (eot, eot)
    assert (config.n_positions, config.n_ctx, config.vocab_size) == (24, 24, SMALL.vocab_size)
    assert (config.n_layer, config.n_head, config.n_embd, config.n_inner) == (2, 2, 16, None)
    assert (config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) == (0.25, 0.25, 0.25)
    assert config.activation_function == "gelu_new" and config.tie_word_embeddings
    assert config.dtype == torch.float32
    assert load_pretrained(folder).config == model_config(folder) == SMALL.replace(dropout=0.25)


def test_a_round_trip_changes_no_byte(tmp_path: Path) -> None:
    save_ours(tmp_path / "ours")
    first = export(tmp_path / "ours", tmp_path / "first")
    second = export(first, tmp_path / "second")
    names = sorted(p.name for p in first.iterdir())
    assert names == sorted(p.name for p in second.iterdir())
    assert "manifest.json" not in names and len(names) == 8
    for name in set(names) - {"README.md"}:  # which has the folder's name on top
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_pipeline_and_its_tokenizer_work_offline(tmp_path: Path, kind: str) -> None:
    ours = save_ours(tmp_path / "ours", tokenizer=kind)
    folder = export(tmp_path / "ours", tmp_path / "hf")
    tokenizer, theirs = TOKENIZERS[kind], AutoTokenizer.from_pretrained(folder)
    assert theirs(TEXT).input_ids == tokenizer.encode(TEXT)
    assert theirs.decode(tokenizer.encode(TEXT)) == TEXT
    assert theirs.eos_token_id == tokenizer.eot and theirs.model_max_length == 24
    assert load_tokenizer_for(folder).fingerprint == tokenizer.fingerprint
    prompt = "to be"
    idx = torch.tensor([tokenizer.encode(prompt)])
    made = pipeline("text-generation", model=str(folder))(
        prompt, do_sample=False, return_full_text=True
    )
    with torch.no_grad():  # greedy, up to the last position
        while idx.size(1) < 24 and idx[0, -1] != tokenizer.eot:
            idx = torch.cat((idx, ours(idx)[:, -1].argmax(-1, keepdim=True)), dim=1)
    wanted = [i for i in idx[0].tolist() if i != tokenizer.eot]
    assert made[0]["generated_text"] == tokenizer.decode(wanted)


def test_an_unknown_character_is_refused_by_the_exported_tokenizer_too(tmp_path: Path) -> None:
    save_ours(tmp_path / "ours", tokenizer="char")
    theirs = AutoTokenizer.from_pretrained(export(tmp_path / "ours", tmp_path / "hf"))
    with pytest.raises(Exception, match="UNK"):
        theirs("Ω")


def test_tying_is_kept(tmp_path: Path) -> None:
    save_ours(tmp_path / "ours")
    for source in (tmp_path / "ours", export(tmp_path / "ours", tmp_path / "hf")):
        model = load_pretrained(source)
        for m in (model, model.to(torch.float64), model.to(torch.bfloat16)):
            assert m.lm_head.weight.data_ptr() == m.transformer.wte.weight.data_ptr()
        assert model.num_parameters() == GPT(SMALL).num_parameters()


def test_names_without_prefix_and_mask_buffers_are_accepted(tmp_path: Path) -> None:
    theirs = save_theirs(tmp_path)

    def as_the_first_gpt2_files(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        bare = {name.removeprefix("transformer."): t for name, t in tensors.items()}
        bare["h.0.attn.bias"] = torch.ones(1, 1, 24, 24, dtype=torch.uint8).tril()
        bare["h.1.attn.masked_bias"] = torch.tensor(-1e4)
        return bare

    change_tensors(tmp_path, as_the_first_gpt2_files)
    with torch.no_grad():
        idx = ids(SMALL)
        torch.testing.assert_close(
            load_pretrained(tmp_path)(idx), theirs(idx).logits, atol=1e-5, rtol=0
        )


def test_shards_are_read(tmp_path: Path) -> None:
    theirs = save_theirs(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert not (tmp_path / checkpoint.MODEL).exists()
    with torch.no_grad():
        idx = ids(SMALL)
        torch.testing.assert_close(
            load_pretrained(tmp_path)(idx), theirs(idx).logits, atol=1e-5, rtol=0
        )
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"wte.weight": "../other.safetensors"}}', encoding="utf-8")
    refused("outside of the folder", load_pretrained, tmp_path)


def test_half_precision_files_become_float32(tmp_path: Path) -> None:
    save_theirs(tmp_path)
    change_tensors(tmp_path, lambda ts: {name: t.bfloat16() for name, t in ts.items()})
    model = load_pretrained(tmp_path)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    change_tensors(tmp_path, lambda ts: ts | {"transformer.wte.weight": torch.ones(3).char()})
    refused("wte.weight in .* is torch.int8, not a floating-point", load_pretrained, tmp_path)


def test_a_shorter_block_keeps_the_first_positions(tmp_path: Path) -> None:
    whole = save_ours(tmp_path / "ours")
    short = load_pretrained(tmp_path / "ours", block_size=9, dropout=0.5)
    assert short.config == whole.config.replace(block_size=9, dropout=0.5)
    assert short.transformer.wpe.weight.shape == (9, 16)
    assert short.transformer.h[0].mlp.dropout == 0.5
    idx = ids(SMALL, 9)
    torch.testing.assert_close(short(idx), whole(idx), atol=1e-6, rtol=0)
    refused("block_size 9", short, ids(SMALL, 10))
    refused("block_size 25 is above the 24 of", load_pretrained, tmp_path / "ours", block_size=25)
    refused("block_size must be at least 1", load_pretrained, tmp_path / "ours", block_size=0)


def test_loading_draws_no_random_numbers(tmp_path: Path) -> None:
    save_ours(tmp_path / "ours")
    before = torch.get_rng_state()
    load_pretrained(tmp_path / "ours")
    assert torch.equal(before, torch.get_rng_state())


def test_a_run_means_its_newest_whole_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    refused("it has no checkpoint yet", resolve, run)
    for step in (1, 2, 3):
        save_ours(run / "checkpoints" / f"step-{step:08d}")
    third = run / "checkpoints" / "step-00000003"
    assert resolve(run) == resolve(third) == third
    assert tokenizer_folder(str(run)) == third / "tokenizer"
    (third / checkpoint.MODEL).unlink()
    with caplog.at_level(logging.WARNING):
        assert resolve(run).name == "step-00000002"
    assert "step-00000003" in caplog.text
    for folder in (run / "checkpoints").iterdir():
        (folder / "config.json").write_text("{}", encoding="utf-8")
    refused("none of its 3 checkpoints is whole", load_pretrained, run)


@pytest.mark.parametrize("name", ["config.json", checkpoint.MODEL, "tokenizer/merges.txt"])
@pytest.mark.parametrize("harm", ["missing", "truncated", "flipped"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, name: str, harm: str) -> None:
    save_ours(tmp_path / "ours")
    path = tmp_path / "ours" / name
    content = bytearray(path.read_bytes())
    path.unlink()
    if harm == "truncated":
        path.write_bytes(content[:-1])
    if harm == "flipped":
        content[-9] ^= 1
        path.write_bytes(content)
    for call in (resolve, load_pretrained, load_tokenizer_for):
        refused(Path(name).name, call, tmp_path / "ours")
    refused(Path(name).name, export, tmp_path / "ours", tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_a_damaged_config_does_not_hide_that_the_checkpoint_is_ours(tmp_path: Path) -> None:
    save_ours(tmp_path / "ours")
    config = tmp_path / "ours" / "config.json"
    for damaged in ("gpt3lib", '"'):  # another kind, and no JSON
        text = config.read_text("utf-8").replace("gpt2lib", damaged)
        config.write_text(text, encoding="utf-8")
        refused("config.json (was altered|has .* bytes instead)", load_pretrained, config.parent)


def test_a_checkpoint_without_manifest_or_of_a_later_format_is_refused(tmp_path: Path) -> None:
    save_ours(tmp_path / "ours")
    (tmp_path / "ours" / "manifest.json").unlink()
    refused("manifest.json is missing", load_pretrained, tmp_path / "ours")
    with atomic_folder(tmp_path / "later") as target:
        shutil.copytree(tmp_path / "ours", target, dirs_exist_ok=True)
        change_config(target, format=2)
    refused("format 2, this version reads format 1", load_pretrained, tmp_path / "later")


def test_another_models_tokenizer_is_refused(tmp_path: Path) -> None:
    save_theirs(tmp_path)
    train_bpe(["abcd abcd xyz xyz " + TEXT] * 9, 320).save(tmp_path)
    n = json.loads((tmp_path / "config.json").read_text("utf-8"))["vocab_size"]
    refused(f"320 tokens, but its model knows {n}", load_tokenizer_for, tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("activation_function", "relu"),
        ("activation_function", "gelu_fast"),
        ("layer_norm_epsilon", 1e-6),
        ("scale_attn_weights", False),
        ("scale_attn_by_inverse_layer_idx", True),
        ("reorder_and_upcast_attn", True),
        ("add_cross_attention", True),
        ("n_inner", 48),
        ("quantization_config", {"bits": 4}),
        ("auto_map", {"AutoModelForCausalLM": "modeling_mine.Mine"}),
        ("model_type", "llama"),
        ("n_embd", "16"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_field_and_value(
    tmp_path: Path, field: str, value: Any
) -> None:
    save_theirs(tmp_path)
    change_config(tmp_path, **{field: value})
    message = refused(field, load_pretrained, tmp_path)
    assert (repr(value) in message or field == "auto_map") and "config.json" in message


def test_the_same_options_written_differently_are_accepted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_theirs(tmp_path)
    change_config(tmp_path, activation_function="gelu_pytorch_tanh", n_inner=64)
    assert load_pretrained(tmp_path).config.dropout == 0.1
    assert not caplog.records
    change_config(tmp_path, resid_pdrop=0.2)
    assert load_pretrained(tmp_path).config.dropout == 0.2
    assert "resid_pdrop 0.2, embd_pdrop 0.1" in caplog.text
    assert load_pretrained(tmp_path, dropout=0.0).config.dropout == 0.0


def test_tensors_must_all_be_there_and_fit(tmp_path: Path) -> None:
    name = "transformer.h.1.mlp.c_fc.bias"
    cases: list[tuple[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]]] = [
        (f"lacks 1 .* the first is '{name}'", lambda ts: _without(ts, name)),
        (r"shape \(3,\).*needs \(64,\)", lambda ts: ts | {name: torch.ones(3)}),
        (r"shape \(16, 16\).*needs \(48, 16\)", lambda ts: ts | {ATTN: torch.ones(16, 16)}),
        ("'score.weight' that the model has no place", lambda ts: ts | {"score.weight": ts[name]}),
        ("twice", lambda ts: ts | {name.removeprefix("transformer."): ts[name]}),
        ("tied", lambda ts: ts | {"lm_head.weight": ts["transformer.wte.weight"] + 1}),
    ]
    for i, (message, change) in enumerate(cases):
        save_theirs(tmp_path / str(i))
        change_tensors(tmp_path / str(i), change)
        refused(message, load_pretrained, tmp_path / str(i))


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_what_wrappers_put_before_names_goes(prefix: str, tmp_path: Path) -> None:
    save_theirs(tmp_path)
    plain = load_pretrained(tmp_path).state_dict()
    change_tensors(tmp_path, lambda ts: {prefix + name: t for name, t in ts.items()})
    wrapped = load_pretrained(tmp_path).state_dict()
    assert plain.keys() == wrapped.keys()
    assert all(torch.equal(plain[name], wrapped[name]) for name in plain)
    change_tensors(tmp_path, lambda ts: ts | {"transformer.wte.weight": torch.ones(1)})
    refused("twice, with and without _orig_mod", load_pretrained, tmp_path)


ATTN = "transformer.h.0.attn.c_attn.weight"


def _without(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: t for key, t in tensors.items() if key != name}


def test_folders_without_a_model_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused("config.json is missing; give a run", load_pretrained, tmp_path / "empty")
    save_theirs(tmp_path / "cpu-run")
    weights = tmp_path / "cpu-run" / checkpoint.MODEL
    refused("is a file; give the folder", load_pretrained, weights)
    refused("did you mean 'cpu-run'", load_pretrained, tmp_path / "cpu-rnu")
    refused("did you mean 'cpu-run'", load_pretrained, str(tmp_path / "cpu-rnu" / "x"))
    weights.rename(weights.with_name("pytorch_model.bin"))
    refused("pickle.*save_pretrained", load_pretrained, tmp_path / "cpu-run")
    (tmp_path / "cpu-run" / "pytorch_model.bin").unlink()
    refused("model.safetensors is missing", load_pretrained, tmp_path / "cpu-run")
    (tmp_path / "cpu-run" / "config.json").write_text("{", encoding="utf-8")
    refused("is not JSON", load_pretrained, tmp_path / "cpu-run")


def test_a_relative_path_is_no_hub_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "cpu").mkdir(parents=True)

    def no_hub(*args: Any, **options: Any) -> str:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_hub)
    for name in ("./gpt2", "runs/cpo", "a/b/c", "~/nothing here", "..", "gpt2/"):
        refused("no folder|no model", resolve, name)
    assert "did you mean 'cpu'? (in runs)" in refused("no folder", resolve, "runs/cpo")


def test_a_hub_name_is_downloaded_without_pickles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_theirs(tmp_path / "cache")
    asked: dict[str, Any] = {}

    def download(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(tmp_path / "cache")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert resolve("someone/their-gpt2") == tmp_path / "cache"
    assert asked["name"] == "someone/their-gpt2"
    assert sorted(asked["allow_patterns"]) == ["*.json", "*.safetensors", "*.txt"]


def test_a_hub_name_without_network_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("Name not known\nCheck the connection")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    refused("'gpt2' is no folder here, .* check the name and the network", load_pretrained, "gpt2")
    (tmp_path / "my-run").mkdir()
    refused("did you mean 'my-run'", load_pretrained, "my-rum")


@pytest.mark.network
def test_the_real_gpt2_loads() -> None:
    model, tokenizer = load_pretrained("gpt2"), load_tokenizer_for("gpt2")
    assert model.num_parameters() == 124_439_808 and tokenizer.name == "gpt2"
    idx = torch.tensor([tokenizer.encode("The capital of France is the city of")])
    assert tokenizer.decode([int(model(idx)[0, -1].argmax())]) == " Paris"


def test_an_export_never_overwrites_silently(tmp_path: Path) -> None:
    save_ours(tmp_path / "ours")
    folder = export(tmp_path / "ours", tmp_path / "new" / "hf")
    refused("is not empty; choose another folder$", export, tmp_path / "ours", folder)
    (folder / "left over").write_text("x", encoding="utf-8")
    export(tmp_path / "ours", folder, overwrite=True)
    assert not (folder / "left over").exists()
    (tmp_path / "mine").mkdir()
    export(tmp_path / "ours", tmp_path / "mine")  # an empty folder will do
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("x", encoding="utf-8")
    for target in (tmp_path / "notes", tmp_path / "ours", tmp_path / "notes" / "a.txt"):
        refused("give a", export, tmp_path / "ours", target, overwrite=True)
    assert (tmp_path / "notes" / "a.txt").exists()
    load_pretrained(tmp_path / "ours")


def test_a_failed_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    save_ours(tmp_path / "ours")
    monkeypatch.setattr(hub_exporting, "write_tensors", full)
    refused("No space left", export, tmp_path / "ours", tmp_path / "hf")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ours"]
