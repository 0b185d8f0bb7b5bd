"""The speedrun presets: their size, that they learn, and the arithmetic of their benchmark."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

import pytest
import torch

from gpt2lib import GPT, train
from gpt2lib.config import TrainConfig, load_config

V = 65
"""Characters in Tiny Shakespeare."""
NANOGPT = V * 128 + 64 * 128 + 4 * (12 * 128**2 + 2 * 128) + 128
"""Parameters of nanoGPT's recipe for a CPU: embeddings, four blocks without biases, a last norm."""


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "speedrun.py"
    sys.path.insert(0, str(path.parent))  # as for a script
    spec = importlib.util.spec_from_file_location("speedrun_benchmark", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def verse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("GPT2LIB_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "verse.txt"
    path.write_text("the king and the queen\nof night do love thee\n" * 60, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", ["speedrun", "speedrun-long"])
def test_both_have_the_size_of_nanogpts_recipe_for_a_cpu(name: str) -> None:
    model = GPT(load_config(name).model.replace(vocab_size=V))
    assert model.num_parameters() == pytest.approx(NANOGPT, rel=0.02)


def test_the_contexts_are_nanogpts() -> None:
    assert load_config("speedrun").model.block_size == 64
    assert load_config("speedrun-long").model.block_size == 256


@pytest.mark.parametrize("name", ["speedrun", "speedrun-long"])
def test_both_read_the_same_text_as_nanogpt_and_end_at_rate_zero(name: str) -> None:
    config = load_config(name)
    assert (config.data.source, config.data.tokenizer) == ("tinyshakespeare", "char")
    assert (config.optim.name, config.optim.decay, config.optim.min_lr) == ("muon", "linear", 0)


@pytest.mark.parametrize("name", ["speedrun", "speedrun-long"])
def test_the_recipe_learns(name: str, verse: str, tmp_path: Path) -> None:
    whole = load_config(name)
    config = whole.replace(
        model=whole.model.replace(block_size=16, n_layer=2, n_embd=32, n_head=2),
        data=whole.data.replace(source=verse),
        **{"steps": 30, "batch_size": 4, "eval_every": 10**6, "sample_tokens": 0},
    )
    result = train(config, tmp_path / "run")
    assert result["loss"] < 0.7 * math.log(20)  # 20 symbols, as likely as one another: log(20)
    assert result["skipped"] == 0


def test_seconds_to_a_goal_are_those_of_the_first_score_that_reaches_it(
    benchmark: ModuleType,
) -> None:
    answer = {"scores": [[10, 1.0, 2.0], [20, 2.0, 1.88], [30, 3.0, 1.9], [40, 4.0, 1.8]]}
    assert benchmark.to_goal(answer, 1.88) == 2.0
    assert benchmark.to_goal(answer, 1.85) == 4.0
    assert benchmark.to_goal(answer, 1.7) is None


def test_what_the_ablation_changes_is_in_the_preset(benchmark: ModuleType) -> None:
    values = load_config("speedrun").to_dict()
    for name, changes in benchmark.WITHOUT.items():
        for section, inner in changes.items():
            pairs = inner.items() if isinstance(inner, dict) else [(section, inner)]
            here = values[section] if isinstance(inner, dict) else values
            differ = [key for key, value in pairs if here[key] != value]
            assert differ == [key for key, _ in pairs], name


def test_each_row_of_the_ablation_differs_from_the_recipe_in_settings_or_in_its_start(
    benchmark: ModuleType,
) -> None:
    changed = {name for name, changes in benchmark.WITHOUT.items() if changes}
    assert changed | set(benchmark.START) == set(benchmark.WITHOUT) - {"the recipe"}


def first_losses(benchmark: ModuleType, name: str, config: TrainConfig, out: Path) -> list[float]:
    """Train as a row of the ablation does; return the loss before each of two updates."""
    with benchmark.START.get(name, nullcontext)():
        train(config, out)
    lines = map(json.loads, (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def test_a_run_can_start_with_projections_of_zero(
    benchmark: ModuleType, verse: str, tmp_path: Path
) -> None:
    whole = load_config("speedrun")
    config = whole.replace(
        model=whole.model.replace(block_size=16, n_layer=2, n_embd=32, n_head=2),
        data=whole.data.replace(source=verse),
        **{"steps": 2, "batch_size": 4, "eval_every": 10**6, "sample_tokens": 0},
    )
    drawn = first_losses(benchmark, "the recipe", config, tmp_path / "drawn")
    zero = first_losses(benchmark, "projections zero at first", config, tmp_path / "zero")
    again = first_losses(benchmark, "the recipe", config, tmp_path / "again")
    assert drawn == again  # nothing stays behind
    assert zero[0] != drawn[0]


def test_projections_of_zero_make_every_block_the_identity(benchmark: ModuleType) -> None:
    shape = load_config("speedrun").model.replace(vocab_size=V, n_layer=2, n_embd=32)
    with benchmark.zero_projections():
        model = GPT(shape)
    zeros = {name for name, weight in model.named_parameters() if not weight.any()}
    assert zeros == {n for n, _ in model.named_parameters() if n.endswith("c_proj.weight")}
    x = torch.randn(2, 5, 32)  # (B, T, C)
    for block in model.transformer.h:
        assert torch.equal(block(x, model.transformer.wpe.rotation(torch.arange(5))), x)


class Uniform(torch.nn.Module):
    """Answers as nanoGPT's model does, and finds every symbol as likely as the others."""

    def forward(
        self, idx: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        logits = torch.zeros(*idx.shape, V)
        loss = torch.nn.functional.cross_entropy(logits.view(-1, V), targets.view(-1))
        return logits, loss


@pytest.mark.parametrize("n", [63, 64, 65, 129, 64 * 65 + 10])
def test_the_score_of_the_other_model_counts_each_token_once(benchmark: ModuleType, n: int) -> None:
    held_out = torch.arange(n + 1).remainder(V).numpy()
    assert benchmark.their_loss(Uniform(), held_out) == pytest.approx(math.log(V))


def test_the_other_rate_rises_falls_and_ends_at_a_tenth(benchmark: ModuleType) -> None:
    rates = [benchmark.their_rate(step, 2000) for step in range(2001)]
    assert max(rates) == rates[100] == 1e-3
    assert rates[2000] == pytest.approx(1e-4) and rates[0] == pytest.approx(1e-3 / 101)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("speedrun.py", "--against"),
        ("speedrun.py --long --steps 0", "at least 1, not '0'"),
        ("speedrun.py --long --preset nonsense", "no preset or YAML file 'nonsense'"),
        ("decode.py --batches -1", "at least 1, not '-1'"),
        ("studies/scaling.py --rounds x", "at least 1, not 'x'"),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_line(line: str, said: str) -> None:
    script, *options = line.split()
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parents[2] / "benchmarks" / script), *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr
    assert said in done.stderr.splitlines()[-1]
