"""The doctor: each check finds what is wrong, and minutes follow from the speed test."""

from __future__ import annotations

import json
import sys
import types
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt2lib.cli import checks, forecast, installed, main
from gpt2lib.cli.doctor import duration
from gpt2lib.cli.installed import Finding, Status
from gpt2lib.config import GPTConfig, TrainConfig, preset_names
from gpt2lib.estimate import gpu_peak, training_flops
from gpt2lib.training import hardware as speed
from gpt2lib.utils.errors import UserError

ROOT = Path(__file__).parents[2]


# ── the checks ──────────────────────────────────────────────────────────────────────────────────


def test_packages_are_compared_with_the_requirements() -> None:
    numpy = metadata.version("numpy")
    found = installed.check_packages(
        [
            "torch>=1",
            "numpy>=99",
            "no-such-package>=3",
            "no-such-notebook>=4; extra == 'lab'",
            "no-such-linter; extra == 'dev'",
        ]
    )
    assert [(f.name, f.status) for f in found] == [
        ("numpy", "problem"),
        ("no-such-package", "problem"),
        ("no-such-notebook", "warning"),
    ]
    assert numpy in found[0].said and found[0].advice == 'pip install "numpy>=99"'
    assert installed.check_packages(["torch>=1"])[0].status == "ok"


def test_an_old_python_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed.check_python().status == "ok"
    monkeypatch.setattr(installed.platform, "python_version", lambda: "3.9.1")
    assert installed.check_python().status == "problem"


@pytest.mark.parametrize(
    ("argv0", "status"),
    [
        (sys.executable, "ok"),
        ("python", "ok"),
        ("/opt/another/bin/python", "warning"),
        (None, "warning"),
    ],
)
def test_the_kernel_must_be_this_python(
    argv0: str | None, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jupyter_client")
    from jupyter_client.kernelspec import KernelSpecManager

    folder = tmp_path / "python3"
    folder.mkdir()
    if argv0 is not None:
        spec = {"argv": [argv0, "-m", "ipykernel_launcher"], "display_name": "x", "language": "p"}
        (folder / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    monkeypatch.setattr(KernelSpecManager, "kernel_dirs", [str(tmp_path)])
    if argv0 is None:  # without ipykernel's own description, which Jupyter falls back on
        monkeypatch.setattr(KernelSpecManager, "_find_spec_directory", lambda *_: None)
    found = installed.check_kernel()
    assert found.status == status
    assert bool(found.advice) == (status != "ok")


@pytest.mark.parametrize(("free", "status"), [(0.3, "problem"), (1.5, "warning"), (8, "ok")])
def test_memory_by_what_is_free(free: float, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    memory = types.SimpleNamespace(available=free * 1e9, total=16e9)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert checks.check_memory().status == status


def test_a_folder_is_looked_at_and_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / "not" / "yet"
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=9e9))
    assert checks.check_folder("cache", deep, "set it").status == "ok"
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=1e8))
    assert checks.check_folder("cache", deep, "set it").status == "problem"

    def read_only(**_: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(checks.tempfile, "TemporaryFile", read_only)
    found = checks.check_folder("cache", deep, "set it")
    assert (found.status, found.advice) == ("problem", "set it")
    assert "Read-only file system" in found.said


def test_a_file_in_the_place_of_a_folder_is_a_problem(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    assert checks.check_folder("cache", file / "below", "set it").status == "problem"


@pytest.mark.parametrize(
    ("cores", "threads", "status"),
    [(4, 4, "ok"), (4, 8, "warning"), (4, 1, "warning"), (1, 1, "ok")],
)
def test_threads_and_cores(
    cores: int, threads: int, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks.os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert checks.check_cores().status == status


@pytest.mark.parametrize(("busy", "status"), [(5.0, "ok"), (95.0, "warning")])
def test_a_busy_machine_is_told(busy: float, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    monkeypatch.setattr(psutil, "cpu_percent", lambda seconds: busy)
    assert checks.check_load().status == status


def test_assets_are_there_with_their_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpt2lib.data.sources import plays
    from gpt2lib.tokenizer import gpt2_vocab

    assert checks.check_plays().status == checks.check_vocabulary().status == "ok"
    monkeypatch.setitem(gpt2_vocab.SHA256, "vocab.bpe", "0" * 64)
    found = checks.check_vocabulary()
    assert found.status == "problem" and found.advice.startswith("run: pip install")
    assert "vocab.bpe" in found.said and "pip" not in found.said
    monkeypatch.setattr(plays, "SHA256", "0" * 64)
    plays.plays.cache_clear()
    found = checks.check_plays()
    plays.plays.cache_clear()
    assert found.status == "problem" and found.advice.startswith("pip install")


def test_tiny_shakespeare_is_looked_for_and_never_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPT2LIB_CACHE", str(tmp_path))
    monkeypatch.setenv("GPT2LIB_DATA", str(tmp_path))
    assert checks.check_tiny().status == "warning"
    (tmp_path / checks.TINY_FILE).write_bytes(b"something else")
    assert checks.check_tiny().status == "problem"
    monkeypatch.setattr(checks, "TINY_SHA256", checks.hashlib.sha256(b"something else").hexdigest())
    assert checks.check_tiny().status == "ok"


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        (None, "ok", ["no default configuration"]),
        ("distributed_type: MULTI_GPU\nnum_processes: 4\n", "ok", ["MULTI_GPU, 4 processes"]),
        (
            "distributed_type: 'NO'\nnum_processes: 1\nuse_cpu: true\n",
            "ok",
            ["1 process, on the C"],
        ),
        ("distributed_type: DEEPSPEED\nnum_processes: 2\n", "warning", ["DEEPSPEED"]),
        ("[", "problem", ["cannot be read"]),
    ],
)
def test_accelerate_s_own_configuration(
    text: str | None,
    status: str,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from accelerate.commands.config import config_args

    path = tmp_path / "default_config.yaml"
    if text is not None:
        common = "compute_environment: LOCAL_MACHINE\nmixed_precision: 'no'\ndebug: false\n"
        path.write_text((common if text != "[" else "") + text, encoding="utf-8")
    monkeypatch.setattr(config_args, "default_config_file", str(path))
    found = installed.check_accelerate()
    assert found.status == status, found
    assert all(word in found.said for word in words)
    assert (str(path) in found.said) == (text is not None)


# ── speed ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "precision", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", "bf16", 312e12),
        ("NVIDIA A100-SXM4-80GB", "tf32", 156e12),
        ("NVIDIA H100 80GB HBM3", "bf16", 989.5e12),
        ("NVIDIA H100 PCIe", "bf16", 756e12),
        ("NVIDIA H200", "fp16", 989.5e12),
        ("NVIDIA L4", "bf16", 121e12),
        ("NVIDIA L40S", "bf16", 362e12),
        ("Tesla T4", "fp16", 65e12),
        ("Tesla T4", "bf16", None),  # it has no bf16
        ("Tesla T4", "tf32", 8.1e12),  # nor TF32: float32 it is
        ("Tesla V100-SXM2-16GB", "fp16", 125e12),
        ("Tesla V100-PCIE-16GB", "fp16", 112e12),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2e12),
        ("NVIDIA L400 Imaginary", "bf16", None),
    ],
)
def test_peaks_go_by_the_whole_name(name: str, precision: str, peak: float | None) -> None:
    assert gpu_peak(name, precision) == peak


def test_mfu_counts_no_recomputation() -> None:
    config = GPTConfig(block_size=64, n_layer=2, n_head=2, n_embd=32, vocab_size=300)
    flops = training_flops(config)
    meter = speed.MfuMeter(TrainConfig(model=config, precision="fp32"), "mps", 2)
    assert meter.peak is None and set(meter(1000.0)) == {"memory"}
    meter.peak = 4000.0 * flops
    assert meter(1000.0)["mfu"] == pytest.approx(0.25)


def test_the_peak_of_a_cpu_is_measured_and_memory_is_resident() -> None:
    import psutil

    peak = speed.peak_flops("cpu", "fp32")
    assert peak is not None and 1e8 < peak < 1e15
    assert speed.peak_flops("mps", "fp32") is None
    resident = psutil.Process().memory_info().rss
    assert speed.memory_in_use("cpu") == pytest.approx(resident, rel=0.2)


def test_timing_an_update_leaves_random_state_alone() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    config, size = forecast.CPU_SHAPES["narrow"]
    assert forecast.update_seconds(config, size, "fp32", seconds=0.0) > 0
    assert torch.equal(torch.get_rng_state(), state)


# ── minutes ─────────────────────────────────────────────────────────────────────────────────────


def made_up(call: float, flop: float) -> dict[str, Any]:
    """A speed test of a machine on which a layer's call and a FLOP have these prices."""
    spent = {
        name: call * (config.n_layer + 1) + flop * size * config.block_size * training_flops(config)
        for name, (config, size) in forecast.CPU_SHAPES.items()
    }
    return {"device": "cpu", "update_seconds": spent}


def test_prices_are_found_again() -> None:
    assert forecast.prices(made_up(1e-3, 1e-11)) == pytest.approx((1e-3, 1e-11))
    noisy = {"device": "cpu", "update_seconds": {"narrow": 1e-9, "wide": 0.1}}
    call, flop = forecast.prices(noisy)
    assert call == 0 and flop > 0


def test_the_preset_that_was_timed_is_predicted_exactly() -> None:
    test = made_up(2e-3, 1.5e-11)
    minutes = forecast.preset_minutes(test)
    steps = {"cpu": 3200, "smoke": 40}
    shape = {"cpu": "wide", "smoke": "narrow"}
    for name, count in steps.items():
        seconds = count * test["update_seconds"][shape[name]]
        assert minutes[name] == pytest.approx(seconds / 60)
    assert set(minutes) == set(preset_names())
    assert minutes["smoke"] < minutes["workshop"] < minutes["cpu"] < minutes["gpt2-124m"]


def test_recomputing_and_pieces_cost_time() -> None:
    test, config = made_up(1e-3, 1e-11), TrainConfig(batch_size=8)
    plain = forecast.training_minutes(config, test)
    again = forecast.training_minutes(config.replace(gradient_checkpointing=True), test)
    every_second = config.replace(gradient_checkpointing=2)
    assert forecast.training_minutes(every_second, test) < again  # fewer blocks run twice
    assert 1.15 * plain < again < 1.4 * plain
    pieces = forecast.training_minutes(config.replace(micro_batch=2), test)
    calls = 1e-3 * (config.model.n_layer + 1) * config.steps / 60
    assert pieces - plain == pytest.approx(3 * calls)


def test_a_machine_half_as_fast_takes_twice_as_long() -> None:
    known = forecast.reference()
    slow = {name: 2 * value for name, value in known["speed"]["update_seconds"].items()}
    minutes = forecast.notebook_minutes({"device": "cpu", "update_seconds": slow})
    assert minutes == pytest.approx({n: 2 * m for n, m in known["notebooks"].items()})


def test_the_recorded_minutes_are_those_of_the_headers(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    sys.path.insert(0, str(ROOT / "tools"))
    from render import MINUTES, record_minutes

    said = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        found = MINUTES.search(nbformat.read(path, as_version=4).cells[0].source)
        assert found
        said[path.name[:2]] = float(found[2])
    assert forecast.reference()["notebooks"] == said, "run: python tools/render.py --links"
    again = tmp_path / "minutes.json"
    again.write_text(forecast.MINUTES.read_text(encoding="utf-8"), encoding="utf-8")
    record_minutes(sorted((ROOT / "notebooks").glob("*.ipynb")), again, None)
    assert json.loads(again.read_text(encoding="utf-8")) == forecast.reference()


def test_a_damaged_record_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "MINUTES", tmp_path / "minutes.json")
    for text in (None, "{", "{}", "[]"):
        if text is not None:
            (tmp_path / "minutes.json").write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=r"minutes\.json cannot be read"):
            forecast.reference()


@pytest.mark.parametrize(
    ("minutes", "said"),
    [
        (0.001, "1 second"),
        (0.9, "54 seconds"),
        (4.93, "4.9 minutes"),
        (72.0, "72 minutes"),
        (100, "1.7 hours"),
        (60 * 48, "2 days"),
        (1e7, "19 years"),
        (1e9, "1,901 years"),
    ],
)
def test_a_time_in_the_unit_that_suits_it(minutes: float, said: str) -> None:
    assert duration(minutes) == said


# ── the command ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A speed test that takes no five seconds."""
    made = {
        **made_up(1e-3, 1e-11),
        "threads": 2,
        "flops": {"fp32": 1e11, "bf16": None},
        "precision": "bf16",
        "tokens_per_second": {"narrow": 1234.0, "wide": 5678.0},
    }
    monkeypatch.setattr(forecast, "speed_test", lambda device="auto", seconds=5.0: made)


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("warning", 0), ("problem", 1)])
def test_only_a_problem_makes_the_exit_code_1(
    quick: None,
    status: Status,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    finding = Finding("disk", status, "as it is", "" if status == "ok" else "make room")
    monkeypatch.setattr(checks, "examine", lambda runs: [finding])
    assert main(["doctor"]) == code
    out = capsys.readouterr().out
    assert f"{status:<8} disk" in out and ("→ make room" in out) == (status != "ok")
    assert "1,234 tokens/s" in out and all(f"  {name} " in out for name in preset_names())
    assert main(["doctor", "--json"]) == code
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == code and found["checks"][0]["status"] == status
    assert set(found["minutes"]["presets"]) == set(preset_names())
    assert set(found["minutes"]["notebooks"]) == set(forecast.reference()["notebooks"])


def test_every_check_answers_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPT2LIB_CACHE", str(tmp_path / "cache"))
    findings = checks.examine(tmp_path / "runs")
    assert {f.status for f in findings} <= {"ok", "warning", "problem"}
    assert all((f.advice != "") == (f.status != "ok") for f in findings)
    assert all("\n" not in f.said + f.advice for f in findings)
    assert list(tmp_path.iterdir()) == []


def test_the_speed_test_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = GPTConfig(block_size=16, n_layer=1, n_head=1, n_embd=16, vocab_size=300)
    monkeypatch.setitem(forecast.CPU_SHAPES, "wide", (tiny, 2))
    monkeypatch.setattr(speed, "SIZE", 64)
    found = forecast.speed_test("cpu", seconds=0.01)
    assert found["device"] == "cpu" and found["precision"] in ("fp32", "bf16")
    for name, (config, size) in forecast.CPU_SHAPES.items():
        tokens = size * config.block_size
        assert found["tokens_per_second"][name] == pytest.approx(
            tokens / found["update_seconds"][name]
        )
