"""What this machine is good at: precision, its peak, and how much of it a run uses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import config, stop_after

from gpt2lib.config import TrainConfig
from gpt2lib.training import hardware
from gpt2lib.training.guard import Interrupted
from gpt2lib.training.loop import Trainer, train
from gpt2lib.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("private_cache")

Opened = Callable[[TrainConfig, Path], Trainer]


def test_precision_auto_takes_the_faster_and_keeps_it(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="gpt2lib")
    # Two updates, and nothing else: a CPU without bf16 makes them slowly.
    few = {"steps": 2, "micro_batch": 4, "eval_batches": 1, "sample_tokens": 0}
    wanted = config(text, precision="auto", model={"n_layer": 1}, **few)
    monkeypatch.setattr(hardware, "time_precisions", lambda *_: {"fp32": 0.02, "bf16": 0.01})
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(Interrupted):
            train(wanted, tmp_path / "run")
    assert "auto → bf16" in caplog.text
    # Resumed where float32 seems faster, it still goes on as it began.
    monkeypatch.setattr(hardware, "time_precisions", lambda *_: {"fp32": 0.01, "bf16": 0.02})
    assert train(wanted, tmp_path / "run")["precision"] == "bf16"
    assert train(wanted, tmp_path / "other")["precision"] == "fp32"


def test_timing_precisions_leaves_no_trace(text: Path, tmp_path: Path, opened: Opened) -> None:
    run = opened(config(text), tmp_path / "run")
    idx, _ = run.loader.micro_batches(0)[0][:2]
    before = torch.get_rng_state()
    bias = run.raw_model.transformer.ln_f.bias
    bias.grad = torch.arange(float(bias.numel()))  # of a micro-batch before
    seconds = hardware.time_precisions(run.raw_model, idx, repeats=1)
    assert set(seconds) == {"fp32", "bf16"}
    assert min(seconds.values()) > 0
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(bias.grad, torch.arange(float(bias.numel())))
    assert all(p.grad is None for p in run.raw_model.parameters() if p is not bias)


def test_a_failed_compilation_is_one_line() -> None:
    error = type("InductorError", (RuntimeError,), {"__module__": "torch._inductor.exc"})
    with pytest.raises(UserError, match=r"failed: No compiler; .* or set compile to false") as e:
        hardware.explain_a_failed_compilation(error("No compiler\n\nSet TORCHDYNAMO_VERBOSE=1"))
    assert "VERBOSE" not in str(e.value)
    hardware.explain_a_failed_compilation(RuntimeError("of another kind"))
