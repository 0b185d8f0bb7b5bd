"""Traps of Accelerate: each is shown to be there, and that this trainer does not fall into it.

Where a trap is shown no more, a new Accelerate has closed it, and what is here against it may go.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import accelerate
import accelerate.accelerator
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import DistributedType, ProjectConfiguration
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader

from gpt2lib.config import GPTConfig, TrainConfig
from gpt2lib.data.loader import Loader
from gpt2lib.model.gpt import GPT
from gpt2lib.model.weights import load_weights, model_tensors
from gpt2lib.runs import checkpoint
from gpt2lib.runs.trackers import check_trackers
from gpt2lib.training.evaluation import score
from gpt2lib.training.loop import Trainer, train
from gpt2lib.training.optim import learning_rate
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import verify

STEPS = 4


pytestmark = pytest.mark.usefixtures("private_cache")


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Accelerate keeps its state for the whole process; each test begins and ends without."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    lines = (f"line {i} of a text with {i * i} in it\n" for i in range(60))
    path.write_text("".join(lines), encoding="utf-8")
    return path


def config(text: Path, **changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "model": {"block_size": 16, "n_layer": 1, "n_head": 2, "n_embd": 16, "dropout": 0.0},
        "data": {"source": str(text), "vocab_size": 280},
        "optim": {"lr": 1e-2, "warmup_steps": 2},
        "steps": STEPS,
        "batch_size": 4,
        "precision": "fp32",
        "device": "cpu",
        "eval_every": 2,
        "save_every": 100,
        "sample_tokens": 0,
    }
    return TrainConfig.from_dict({**values, **changes})


@pytest.fixture
def trainer(opened: Callable[[TrainConfig, Path], Trainer]) -> Callable[..., Trainer]:
    """Make trainers of a text, a folder and changed settings."""
    return lambda text, folder, **changes: opened(config(text, **changes), folder)


def updates(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, lines) if "loss" in line]


# ── accumulation ────────────────────────────────────────────────────────────────────────────


def test_backward_divides_by_what_the_launcher_was_told(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six micro-batches at four steps of accumulation would be divided by four."""
    train(config(text, micro_batch=1), tmp_path / "without")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    AcceleratorState._reset_state(reset_partial_state=True)
    weight = torch.ones((), requires_grad=True)
    Accelerator(cpu=True).backward(weight * 1.0)
    assert weight.grad == 0.25  # the trap
    GradientState._reset_state()
    train(config(text, micro_batch=1), tmp_path / "with")
    for name in ("loss", "grad_norm"):
        got, wanted = ([u[name] for u in updates(tmp_path / d)] for d in ("with", "without"))
        assert got == wanted and len(got) == STEPS


def test_accumulate_drops_the_last_partial_window(
    text: Path, tmp_path: Path, trainer: Callable[..., Trainer]
) -> None:
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=4)
    model = nn.Linear(1, 1)
    stepped = []
    for i in range(6):
        with accelerator.accumulate(model):
            stepped += [i] * accelerator.sync_gradients
    assert stepped == [3]  # the trap: micro-batches 4 and 5 never reach the weights
    AcceleratorState._reset_state(reset_partial_state=True)
    run = trainer(text, tmp_path / "run")
    device, data = torch.device("cpu"), run.data
    whole = Loader(run.config, data, 0, 1, device).micro_batches(3)[0].idx  # (4, T)
    for processes, size in ((1, 1), (1, 2), (2, 1), (2, 2), (4, 1)):
        loaders = [
            Loader(run.config.replace(micro_batch=size), data, rank, processes, device)
            for rank in range(processes)
        ]
        read = torch.cat([part.idx for loader in loaders for part in loader.micro_batches(3)])
        assert torch.equal(read, whole)


# ── order of the data ───────────────────────────────────────────────────────────────────────


def test_skipping_batches_resumes_in_another_order(
    text: Path, tmp_path: Path, trainer: Callable[..., Trainer]
) -> None:
    loader = Accelerator(cpu=True).prepare(DataLoader(list(range(64)), shuffle=True))
    torch.manual_seed(1)
    seen: list[int] = []
    for i, value in enumerate(loader):
        seen.append(int(value))
        if i == 9:
            state = torch.get_rng_state()  # a checkpoint's
    torch.set_rng_state(state)
    resumed = [int(v) for v in accelerate.skip_first_batches(loader, 10)]
    assert len(resumed) == 54 and resumed != seen[10:]  # the trap
    AcceleratorState._reset_state(reset_partial_state=True)
    run = trainer(text, tmp_path / "run")
    before = run.loader.micro_batches(2)[0].idx
    state = torch.get_rng_state()
    torch.manual_seed(99)
    fresh = Loader(run.config, run.data, 0, 1, torch.device("cpu"))
    assert torch.equal(fresh.micro_batches(2)[0].idx, before)
    torch.set_rng_state(state)
    run.loader.micro_batches(3)
    assert torch.equal(torch.get_rng_state(), state)  # reading draws nothing, so dropout stays


# ── checkpoints ─────────────────────────────────────────────────────────────────────────────


def test_save_state_deletes_before_it_saves(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainer: Callable[..., Trainer]
) -> None:
    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    settings = ProjectConfiguration(
        str(tmp_path / "theirs"), automatic_checkpoint_naming=True, total_limit=1
    )
    accelerator = Accelerator(cpu=True, project_config=settings)
    accelerator.prepare(nn.Linear(2, 2))
    accelerator.save_state()
    folder = tmp_path / "theirs" / "checkpoints"
    assert len(list(folder.rglob("*.safetensors"))) == 1
    with monkeypatch.context() as patch:
        patch.setattr(accelerate.accelerator, "save_accelerator_state", full_disk)
        with pytest.raises(OSError, match="No space"):
            accelerator.save_state()
    kept = list(folder.rglob("*.safetensors"))
    assert kept == [] or kept[0].parent.name != "checkpoint_0"  # the trap: the first is gone
    AcceleratorState._reset_state(reset_partial_state=True)
    run = trainer(text, tmp_path / "run", keep=1)
    run.update()
    run.save({})
    run.update()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full_disk)
        with pytest.raises(UserError, match="No space left on device"):
            run.save({})
    (left,) = checkpoint.checkpoints(tmp_path / "run")
    assert left.name == "step-00000001"
    verify(left)


def test_tied_weights_lose_a_key(text: Path, tmp_path: Path) -> None:
    shape = GPTConfig(n_layer=1, n_head=1, n_embd=8, vocab_size=9, block_size=8)
    model = GPT(shape)
    Accelerator(cpu=True).save_model(model, str(tmp_path / "theirs"))
    theirs = load_file(tmp_path / "theirs" / "model.safetensors")
    with pytest.raises(RuntimeError, match=r"Missing key.*(lm_head|wte)"):
        GPT(shape).load_state_dict(theirs)  # the trap
    tensors = model_tensors(model)
    assert len(tensors) == len(list(model.parameters()))
    other = GPT(shape)
    load_weights(other, tensors, "here")
    assert other.lm_head.weight is other.transformer.wte.weight
    assert torch.equal(other.lm_head.weight, model.lm_head.weight)


def test_compiled_models_have_other_names(
    text: Path, tmp_path: Path, trainer: Callable[..., Trainer]
) -> None:
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, vocab_size=9, block_size=8))
    assert all(name.startswith("_orig_mod.") for name in torch.compile(model).state_dict())
    run = trainer(text, tmp_path / "run", compile=True)
    plain = trainer(text, tmp_path / "plain")
    names = list(model_tensors(run.raw_model))
    assert names == list(model_tensors(plain.raw_model))
    assert run.raw_model._compiled_call_impl is not None  # and it is compiled
    assert plain.raw_model._compiled_call_impl is None


def test_a_truncated_random_state_is_found(
    text: Path, tmp_path: Path, trainer: Callable[..., Trainer]
) -> None:
    """`load_state` goes on without it, and every dropped activation is another one."""
    run = trainer(text, tmp_path / "run")
    run.update()
    run.save({})
    (folder,) = checkpoint.checkpoints(tmp_path / "run")
    file = folder / "random.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"random\.safetensors"):
        verify(folder)


# ── what is ignored without a word ──────────────────────────────────────────────────────────


def test_fp16_on_a_cpu_is_ignored(text: Path, tmp_path: Path) -> None:
    accelerator = Accelerator(cpu=True, mixed_precision="fp16")
    assert accelerator.scaler is None and not accelerator.native_amp  # the trap: float32
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(UserError, match="fp16 needs a GPU"):
        train(config(text, precision="fp16"), tmp_path / "run")


def test_fsdp_on_a_cpu_is_ignored(
    text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    trainer: Callable[..., Trainer],
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    assert Accelerator(cpu=True).distributed_type == DistributedType.NO  # the trap
    AcceleratorState._reset_state(reset_partial_state=True)
    with caplog.at_level(logging.WARNING, "gpt2lib"):
        trainer(text, tmp_path / "run")
    assert "FSDP was asked for, but" in caplog.text


def test_a_missing_tracker_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # whether or not it is installed
    monkeypatch.setattr(accelerate.tracking, "is_wandb_available", lambda: False)
    assert Accelerator(cpu=True, log_with="wandb").log_with == []  # the trap: training goes on
    with pytest.raises(UserError, match="wandb"):
        check_trackers(("wandb",))


def test_what_accelerate_config_was_told_of_compiling_is_not_taken(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainer: Callable[..., Trainer]
) -> None:
    """Or a run would be compiled that says it was not."""
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "inductor")
    assert Accelerator(cpu=True).state.dynamo_plugin.backend.value == "INDUCTOR"  # the trap
    AcceleratorState._reset_state(reset_partial_state=True)
    run = trainer(text, tmp_path / "run")
    assert run.accelerator.state.dynamo_plugin.backend.value == "NO"
    assert run.model is run.raw_model


# ── two processes ───────────────────────────────────────────────────────────────────────────

TWO = """
import json, os, sys
from pathlib import Path
import torch
from accelerate import Accelerator, notebook_launcher
from accelerate.state import AcceleratorState, GradientState
from torch import nn
from torch.utils.data import DataLoader
from gpt2lib import load_config, train
from gpt2lib.runs.folder import open_run
from gpt2lib.training.loop import Trainer

folder, settings, port = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

def forget():
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()

def many(config):
    found = {}
    if not torch.cuda.is_available():
        found["plain"] = Accelerator().num_processes
    forget()
    accelerator = Accelerator(cpu=True)
    found["meant"] = accelerator.num_processes
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    optimizer, scheduler = accelerator.prepare(optimizer, scheduler)
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    found["lr"] = optimizer.param_groups[0]["lr"]
    loader = accelerator.prepare(DataLoader(list(range(5)), batch_size=1))
    read = torch.cat([accelerator.gather(batch) for batch in loader])
    found["read"] = sorted(read.tolist())
    with open_run(folder / "score", config) as run:
        found["score"] = Trainer(config, run).evaluator.score(full=True)
    train(config, folder / "two")
    (folder / f"found-{os.environ['RANK']}.json").write_text(json.dumps(found))

notebook_launcher(many, (load_config(settings),), num_processes=2, use_port=port)
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    """What two processes do, all in one launch."""
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = str(server.getsockname()[1])
    folder = tmp_path_factory.mktemp("two")
    settings = folder / "settings.json"
    settings.write_text(json.dumps(config(text, micro_batch=2).to_dict()), encoding="utf-8")
    command = [sys.executable, "-c", TWO, str(folder), str(settings), port]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, timeout=300, env=env)
    return folder


def found(two: Path, rank: int = 0) -> dict[str, Any]:
    return json.loads((two / f"found-{rank}.json").read_text(encoding="utf-8"))


def test_a_plain_accelerator_on_a_machine_without_gpu_is_alone(two: Path) -> None:
    assert [found(two, rank).get("plain", 1) for rank in (0, 1)] == [1, 1]  # the trap
    assert found(two)["meant"] == 2
    result = json.loads((two / "two" / "result.json").read_text(encoding="utf-8"))
    assert result["processes"] == 2


def test_a_prepared_scheduler_steps_once_for_each_process(two: Path, text: Path) -> None:
    assert found(two)["lr"] == 0.5**8  # the trap: 4 updates, 2 processes
    wanted = [learning_rate(step, STEPS, config(text).optim) for step in range(STEPS)]
    assert [line["lr"] for line in updates(two / "two")] == wanted


def test_even_batches_repeat_samples(
    two: Path, text: Path, tmp_path: Path, trainer: Callable[..., Trainer]
) -> None:
    assert found(two)["read"] == [0, 0, 1, 2, 3, 4]  # the trap: a sample more, to make it even
    run = trainer(text, tmp_path / "run", micro_batch=2)
    held_out, size = run.data.val, run.loader.size
    assert held_out is not None
    windows = -(-(len(held_out) - 1) // 16)
    assert -(-windows // size) % 2 == 1  # an odd number of batches for two processes
    alone = run.evaluator.score(full=True)
    for rank in (0, 1):
        ours = found(two, rank)["score"]
        assert ours["tokens"] == alone["tokens"] == len(held_out) - 1
        assert ours["loss"] == pytest.approx(alone["loss"], abs=1e-6)
        assert ours["bits_per_byte"] == pytest.approx(alone["bits_per_byte"], abs=1e-6)


def test_every_process_passes_through_the_model_as_often(
    text: Path, tmp_path: Path, trainer: Callable[..., Trainer]
) -> None:
    """Or one with a share of the weights would wait for the other for ever."""

    class Rank:
        num_processes, device = 2, torch.device("cpu")

        def __init__(self, rank: int) -> None:
            self.process_index = rank

        def reduce(self, tensor: torch.Tensor, how: str) -> torch.Tensor:
            return tensor

    run = trainer(text, tmp_path / "run", micro_batch=2)
    assert run.data.val is not None
    passes, tokens = [], 0
    for rank in (0, 1):
        calls: list[int] = []
        handle = run.raw_model.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        tokens += score(run.raw_model, run.data.val, 16, 2, None, Rank(rank))["tokens"]  # type: ignore[arg-type]
        handle.remove()
        passes.append(len(calls))
    assert passes[0] == passes[1] > 1
    assert tokens == len(run.data.val) - 1
