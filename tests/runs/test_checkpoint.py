"""Checkpoints: weights and optimiser, whole, verified and exact."""

import logging
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from gpt2lib.config import GPTConfig, OptimConfig
from gpt2lib.model.gpt import GPT
from gpt2lib.model.weights import load_optimizer, load_weights, model_tensors, optimizer_tensors
from gpt2lib.runs import checkpoint
from gpt2lib.runs.checkpoint import (
    checkpoints,
    newest,
    prune,
    read_tensors,
    write_model_config,
    write_tensors,
)
from gpt2lib.training.optim import decay_groups, make_optimizer
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import atomic_folder
from gpt2lib.utils.formats import read_json, write_json

TINY = GPTConfig(vocab_size=13, block_size=8, n_layer=1, n_head=2, n_embd=8)


def gpt(seed: int = 0, **changes) -> GPT:
    torch.manual_seed(seed)
    return GPT(TINY.replace(**changes))


def refused(match: str):
    """Expect one line that matches."""
    return pytest.raises(UserError, match=re.compile(f"^[^\n]*{match}[^\n]*$"))


# ── the folders of a run ────────────────────────────────────────────────────────────────────────


def add(run: Path, step: int, damaged: bool = False) -> Path:
    target = run / "checkpoints" / f"step-{step:08d}"
    with atomic_folder(target) as folder:
        (folder / "model.safetensors").write_bytes(b"weights")
    if damaged:
        (target / "model.safetensors").write_bytes(b"weighty")
    return target


def test_they_are_listed_by_their_number(tmp_path):
    assert checkpoints(tmp_path) == []
    added = [add(tmp_path, step) for step in (99_999_999, 500, 100_000_000)]
    for name in (".step-00000600.tmp-1", "step-last", "notes"):
        (tmp_path / "checkpoints" / name).mkdir()
    (tmp_path / "checkpoints" / "step-00000700").write_text("a file", encoding="utf-8")
    assert checkpoints(tmp_path) == [added[1], added[0], added[2]]


def test_the_newest_that_verifies_is_taken_and_the_skipped_ones_are_named(tmp_path, caplog):
    good = add(tmp_path, 100)
    add(tmp_path, 200, damaged=True)
    (add(tmp_path, 300) / "manifest.json").unlink()
    with caplog.at_level(logging.WARNING):
        assert newest(tmp_path) == good
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "step-00000300" in said[0] and "manifest.json is missing" in said[0]
    assert "step-00000200" in said[1] and "was altered" in said[1]


def test_a_sound_newest_is_taken_in_silence(tmp_path, caplog):
    add(tmp_path, 100)
    assert newest(tmp_path) is not None
    assert newest(tmp_path).name == "step-00000100"
    assert not caplog.records


def test_without_a_sound_one_there_is_none(tmp_path):
    assert newest(tmp_path) is None
    add(tmp_path, 100, damaged=True)
    assert newest(tmp_path) is None


def left(run: Path) -> list[int]:
    return [int(p.name.removeprefix("step-")) for p in checkpoints(run)]


@pytest.mark.parametrize(("keep", "kept"), [(1, [400]), (2, [300, 400]), (9, [100, 200, 300, 400])])
def test_only_the_newest_are_kept(tmp_path, keep, kept):
    for step in (100, 200, 300, 400):
        add(tmp_path, step)
    prune(tmp_path, keep)
    assert left(tmp_path) == kept


def test_a_loss_that_is_no_number_is_never_the_best(tmp_path):
    for step, loss in ((100, float("nan")), (200, 5.0), (300, 6.0), (400, None)):
        with atomic_folder(tmp_path / "checkpoints" / f"step-{step:08d}") as folder:
            write_json(folder / checkpoint.STATE, {"val_loss": loss})
    prune(tmp_path, 1, keep_best=True)
    assert left(tmp_path) == [200, 400]


def test_a_damaged_one_never_pushes_out_a_sound_one(tmp_path):
    for step, damaged in ((100, False), (200, False), (300, True)):
        add(tmp_path, step, damaged)
    prune(tmp_path, 1)  # the run went back past 300 and has just written 200
    assert left(tmp_path) == [200, 300]
    add(tmp_path, 300)
    prune(tmp_path, 1)
    assert left(tmp_path) == [300]


# ── tensors ─────────────────────────────────────────────────────────────────────────────────────


def test_tensors_go_around_bitwise_with_dtype_and_shape(tmp_path):
    tensors = {
        "a": torch.randn(3, 4).T,  # not contiguous
        "b": torch.randn(5).bfloat16(),
        "c": torch.tensor(7),
        "d": torch.tensor([float("nan"), float("inf"), -0.0]),
    }
    write_tensors(tmp_path / "x.safetensors", tensors)
    found = read_tensors(tmp_path / "x.safetensors")
    assert set(found) == set(tensors)
    for name, t in tensors.items():
        assert found[name].dtype is t.dtype
        assert found[name].shape == t.shape
        assert torch.equal(found[name].nan_to_num(), t.nan_to_num())


def test_a_missing_or_damaged_file_is_one_line(tmp_path):
    path = tmp_path / "x.safetensors"
    with refused("x.safetensors is missing"):
        read_tensors(path)
    write_tensors(path, {"a": torch.zeros(10)})
    path.write_bytes(path.read_bytes()[:-1])
    with refused("x.safetensors is damaged"):
        read_tensors(path)
    path.write_bytes(b"not safetensors")
    with refused("x.safetensors is damaged"):
        read_tensors(path)


def test_a_disk_that_fills_up_in_the_middle_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    target = tmp_path / "step-00000001"
    with refused("cannot write .*No space left"), atomic_folder(target) as folder:
        write_tensors(folder / "model.safetensors", {"a": torch.zeros(10)})
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="limits the size of files")
def test_a_real_refusal_of_the_system_is_one_line(tmp_path):
    import resource
    import signal

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with refused("cannot write .*File too large"), atomic_folder(tmp_path / "x") as folder:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
            write_tensors(folder / "model.safetensors", {"a": torch.zeros(1000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())


# ── weights ─────────────────────────────────────────────────────────────────────────────────────


def assert_same(a: GPT, b: GPT) -> None:
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(x, y), name


@pytest.mark.parametrize("tied", [True, False])
def test_weights_go_around_bitwise(tmp_path, tied):
    source, target = gpt(0, tie_weights=tied), gpt(1, tie_weights=tied)
    write_tensors(tmp_path / "m.safetensors", model_tensors(source))
    load_weights(target, read_tensors(tmp_path / "m.safetensors"), tmp_path)
    assert_same(source, target)


@pytest.mark.parametrize(
    "names", [["lm_head"], ["transformer.wte"], ["transformer.wte", "lm_head"]]
)
def test_a_tied_pair_takes_either_name_or_both(names):
    source, target = gpt(0), gpt(1)
    tensors = dict(source.state_dict())
    for name in {"lm_head", "transformer.wte"} - set(names):
        del tensors[f"{name}.weight"]
    load_weights(target, tensors, "here")
    assert_same(source, target)


def missing(tensors):
    del tensors["transformer.h.0.ln_1.bias"]


def missing_pair(tensors):
    del tensors["transformer.wte.weight"], tensors["lm_head.weight"]


def unknown(tensors):
    tensors["transformer.h.9.ln_1.bias"] = torch.zeros(8)


def other_shape(tensors):
    tensors["transformer.wpe.weight"] = torch.zeros(4, 8)


def differing_pair(tensors):
    tensors["lm_head.weight"] = tensors["lm_head.weight"] + 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (missing, "FILE lacks 1 of .*'transformer.h.0.ln_1.bias'"),
        (missing_pair, "FILE lacks 1 of .*'transformer.wte.weight'"),
        (unknown, "FILE has a tensor 'transformer.h.9.ln_1.bias' that the model has no place"),
        (other_shape, r"transformer.wpe.weight has shape \(4, 8\) in FILE, .* needs \(8, 8\)"),
        (differing_pair, "FILE: lm_head.weight differs from transformer.wte.weight"),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_the_model_alone(change, says):
    target = gpt(1)
    tensors = {name: t.clone() for name, t in gpt(0).state_dict().items()}
    change(tensors)
    with refused(says):
        load_weights(target, tensors, "FILE")
    assert_same(target, gpt(1))


def test_a_tied_file_does_not_fill_an_untied_model():
    with refused("lacks 1 of .*'lm_head.weight'"):
        load_weights(gpt(1, tie_weights=False), model_tensors(gpt(0)), "FILE")


def test_loading_copies_and_converts():
    target = gpt(1)
    place = target.transformer.wte.weight
    tensors = {name: t.double() for name, t in model_tensors(gpt(0)).items()}
    load_weights(target, tensors, "FILE")
    assert target.transformer.wte.weight is place and place.dtype is torch.float32
    tensors["transformer.wte.weight"].zero_()
    assert place.abs().sum() > 0
    assert place.requires_grad


# ── the optimiser ───────────────────────────────────────────────────────────────────────────────


def step(model: GPT, optimizer: torch.optim.Optimizer, seed: int) -> None:
    idx = torch.randint(13, (2, 8), generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    model(idx[:, :-1], idx[:, 1:])[0].backward()
    optimizer.step()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("fused", [True, False])
def test_a_resumed_optimiser_goes_on_bitwise(tmp_path, tied, fused):
    def make(seed):
        model = gpt(seed, tie_weights=tied)
        optimizer = torch.optim.AdamW(decay_groups(model, 0.1), lr=0.01, fused=fused)
        return model, optimizer

    model, optimizer = make(0)
    for i in range(3):
        step(model, optimizer, i)
    write_tensors(tmp_path / "m.safetensors", model_tensors(model))
    write_tensors(tmp_path / "o.safetensors", optimizer_tensors(model, optimizer))

    other, resumed = make(1)
    step(other, resumed, 9)  # what it held before must not survive
    load_weights(other, read_tensors(tmp_path / "m.safetensors"), tmp_path)
    load_optimizer(other, resumed, read_tensors(tmp_path / "o.safetensors"))
    before, after = optimizer_tensors(model, optimizer), optimizer_tensors(other, resumed)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[n], after[n]) for n in before)
    assert before["step/transformer.wte.weight"] == 3

    for i in range(3, 6):
        step(model, optimizer, i)
        step(other, resumed, i)
    assert_same(model, other)


def test_the_state_of_a_tied_weight_is_written_once():
    model = gpt()
    optimizer = make_optimizer(model, OptimConfig())
    step(model, optimizer, 0)
    names = optimizer_tensors(model, optimizer)
    assert len(names) == 3 * len(list(model.parameters()))  # step, exp_avg, exp_avg_sq
    assert not [n for n in names if "lm_head" in n]


def test_state_that_is_not_in_the_file_is_gone():
    model = gpt()
    optimizer = make_optimizer(model, OptimConfig())
    step(model, optimizer, 0)
    load_optimizer(model, optimizer, {})
    assert optimizer_tensors(model, optimizer) == {}
    step(model, optimizer, 1)
    assert optimizer_tensors(model, optimizer)["step/transformer.wte.weight"] == 1


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"exp_avg/nowhere.weight": torch.zeros(3)}, "'exp_avg/nowhere.weight', but the model no"),
        (
            {"exp_avg/transformer.wpe.weight": torch.zeros(4, 8)},
            r"exp_avg/transformer.wpe.weight has shape \(4, 8\).*has \(8, 8\)",
        ),
    ],
)
def test_state_that_does_not_fit_is_one_line_and_changes_nothing(tensors, says):
    model = gpt()
    optimizer = make_optimizer(model, OptimConfig())
    step(model, optimizer, 0)
    with refused(says):
        load_optimizer(model, optimizer, tensors)
    assert len(optimizer_tensors(model, optimizer)) == 3 * len(list(model.parameters()))


def test_loaded_state_is_a_copy():
    model = gpt()
    optimizer = make_optimizer(model, OptimConfig())
    step(model, optimizer, 0)
    tensors = {n: t.clone() for n, t in optimizer_tensors(model, optimizer).items()}
    load_optimizer(model, optimizer, tensors)
    step(model, optimizer, 1)
    assert tensors["step/transformer.wte.weight"] == 1


def test_the_shape_of_the_model_lies_beside_its_weights(tmp_path):
    config = TINY.replace(tie_weights=False, dropout=0.25)
    write_model_config(tmp_path, config)
    written = read_json(tmp_path / "config.json")
    assert (written["kind"], written["format"]) == ("gpt2lib", 1)
    assert GPTConfig.from_dict(written["model"]) == config
