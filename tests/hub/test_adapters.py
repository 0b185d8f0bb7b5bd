"""LoRA's matrices, to and from PEFT."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import config

from gpt2lib import load_pretrained, load_tokenizer_for
from gpt2lib.hub import export
from gpt2lib.hub.exporting import export_adapter
from gpt2lib.runs.checkpoint import (
    ADAPTER,
    ADAPTER_CONFIG,
    checkpoints,
    read_tensors,
    write_tensors,
)
from gpt2lib.training.loop import train
from gpt2lib.utils.errors import UserError

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.usefixtures("private_cache")

LORA = {"name": "lora", "rank": 3, "alpha": 6.0}


@pytest.fixture(scope="module")
def tuned(
    tmp_path_factory: pytest.TempPathFactory, uninterrupted: Path, text: Path, private_cache: None
) -> Path:
    """A run of LoRA; nobody may change it."""
    run = tmp_path_factory.mktemp("adapters") / "run"
    train(config(text, init_from=str(uninterrupted), method=LORA, optim={"lr": 0.05}), run)
    return run


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, uninterrupted: Path) -> Path:
    """The model under it, as a transformers folder."""
    return export(uninterrupted, tmp_path_factory.mktemp("adapters") / "base")


@pytest.fixture
def theirs(base: Path, tmp_path: Path) -> Path:
    """An adapter that PEFT made, whose matrices are not zero."""
    return peft_adapter(base, tmp_path / "theirs")


def peft_adapter(base: Path, folder: Path, **changes: Any) -> Path:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(5)
    fields = {"r": 4, "lora_alpha": 12, "target_modules": ["c_attn", "c_fc"], **changes}
    made = peft.LoraConfig(task_type="CAUSAL_LM", fan_in_fan_out=True, **fields)
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), made)
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.3)
    model.save_pretrained(folder)
    return folder


def logits(model: Any) -> torch.Tensor:
    idx = torch.arange(16)[None] * 7 % 280
    with torch.no_grad():
        out = model.eval()(idx)
    return getattr(out, "logits", out)


def test_peft_opens_ours(tuned: Path, base: Path, uninterrupted: Path) -> None:
    from transformers import AutoModelForCausalLM

    checkpoint = checkpoints(tuned)[-1]
    opened = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), checkpoint)
    ours = load_pretrained(tuned)
    torch.testing.assert_close(logits(opened), logits(ours), atol=1e-5, rtol=0)
    moved = (logits(ours) - logits(load_pretrained(uninterrupted))).abs().max()
    assert moved > 0.05  # it has learned something, so the test can fail


def test_we_open_pefts(theirs: Path, base: Path) -> None:
    from transformers import AutoModelForCausalLM

    opened = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), theirs)
    expected = logits(opened)
    torch.testing.assert_close(logits(load_pretrained(theirs)), expected, atol=1e-5, rtol=0)
    merged = opened.merge_and_unload()
    torch.testing.assert_close(logits(merged), expected, atol=1e-5, rtol=0)
    assert load_tokenizer_for(theirs).vocab_size == load_tokenizer_for(base).vocab_size


def test_we_open_pefts_with_ranks_scaled_by_a_root(base: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = peft_adapter(base, tmp_path / "rs", use_rslora=True, rank_pattern={"c_fc": 2})
    opened = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
    expected = logits(opened)
    torch.testing.assert_close(logits(load_pretrained(folder)), expected, atol=1e-5, rtol=0)


def test_an_export_is_merged(tuned: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = export(tuned, tmp_path / "merged")
    assert not (folder / ADAPTER).exists()
    opened = AutoModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(logits(opened), logits(load_pretrained(tuned)), atol=1e-5, rtol=0)


def test_an_adapter_is_exported_alone(tuned: Path, base: Path, tmp_path: Path) -> None:

    folder = export_adapter(tuned, tmp_path / "alone", base=str(base))
    names = {path.name for path in folder.iterdir()}
    assert {ADAPTER, ADAPTER_CONFIG, "README.md"} <= names
    assert "model.safetensors" not in names and "config.json" not in names
    said = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    assert said["base_model_name_or_path"] == str(base)
    opened = peft.AutoPeftModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(logits(opened), logits(load_pretrained(tuned)), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        logits(load_pretrained(folder)), logits(load_pretrained(tuned)), atol=1e-5, rtol=0
    )


def test_a_run_without_lora_has_no_adapter_to_export(uninterrupted: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no adapter"):
        export_adapter(uninterrupted, tmp_path / "alone", base="gpt2")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3'; what can be read is LORA"),
        ({"use_dora": True}, "has use_dora True, which is not read here"),
        ({"modules_to_save": ["wte"]}, "has modules_to_save"),
        ({"bias": "all"}, "has bias 'all'"),
        ({"lora_alpha": "many"}, "lora_alpha 'many', which is no number"),
        ({"base_model_name_or_path": None}, "does not name the model"),
        ({"base_model_name_or_path": "./nowhere"}, "is an adapter, of no use without"),
    ],
)
def test_what_is_not_read(theirs: Path, changes: dict[str, Any], message: str) -> None:
    path = theirs / ADAPTER_CONFIG
    said = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**said, **changes}), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load_pretrained(theirs)


def damaged(folder: Path, change: Any) -> None:
    tensors = read_tensors(folder / ADAPTER)
    write_tensors(folder / ADAPTER, change(tensors))


def test_an_adapter_of_another_shape_is_refused(theirs: Path) -> None:
    wide = lambda tensors: {  # noqa: E731
        n: torch.cat([t, t], 1) if ".c_fc.lora_A" in n else t for n, t in tensors.items()
    }
    damaged(theirs, wide)
    with pytest.raises(UserError, match=r"c_fc .* are \(64, 4\) and \(4, 32\), .* of \(64, 16\)"):
        load_pretrained(theirs)


def test_an_adapter_with_a_matrix_missing_is_refused(theirs: Path) -> None:
    damaged(theirs, lambda tensors: dict(list(tensors.items())[1:]))
    with pytest.raises(UserError, match="is no adapter of LoRA"):
        load_pretrained(theirs)


def test_an_adapter_of_a_deeper_model_is_refused(theirs: Path) -> None:
    deeper = lambda tensors: {n.replace(".h.1.", ".h.7."): t for n, t in tensors.items()}  # noqa: E731
    damaged(theirs, deeper)
    with pytest.raises(UserError, match=r"matrices for transformer.h.7\.\S+, which .* has not"):
        load_pretrained(theirs)


def test_a_base_with_other_weights_is_refused(
    text: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(checkpoints(uninterrupted)[-1], base)
    wanted = config(text, init_from=str(base), method=LORA, steps=1)
    train(wanted, tmp_path / "run")
    load_pretrained(tmp_path / "run")
    shutil.rmtree(base)
    other = config(text, seed=2)
    train(other, tmp_path / "other")
    shutil.copytree(checkpoints(tmp_path / "other")[-1], base)
    with pytest.raises(UserError, match="has not the weights any more"):
        load_pretrained(tmp_path / "run")


def test_an_adapter_of_a_model_that_peft_knows_otherwise_is_not_exported_alone(
    text: Path, tmp_path: Path
) -> None:
    turned = config(text, model={"position": "rope"}, steps=1)
    train(turned, tmp_path / "base")
    train(config(text, init_from=str(tmp_path / "base"), method=LORA, steps=1), tmp_path / "run")
    with pytest.raises(UserError, match="is a starcoder2 in transformers, whose layers have other"):
        export_adapter(tmp_path / "run", tmp_path / "alone", base="gpt2")
    export(tmp_path / "run", tmp_path / "merged")
