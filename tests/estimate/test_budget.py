"""Time, money and memory on GPUs, and how cost grows: by hand, and against itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpt2lib.cli import main
from gpt2lib.cli.costing import long_duration
from gpt2lib.config import GPTConfig
from gpt2lib.estimate import count_parameters, training_flops
from gpt2lib.estimate.budget import Cluster, assumed_efficiency, budget
from gpt2lib.estimate.gpus import GPUS, MEMORY, gpu_peak, known_gpu
from gpt2lib.utils.errors import UserError

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks" / "studies"))
import budget as budget_script  # noqa: E402
from exponents import exponent, exponents, report  # noqa: E402

# ── time and money ──────────────────────────────────────────────────────────────────────────────


def test_an_hour_of_an_a100_by_hand() -> None:
    """312e12 FLOP/s at 50 %, for an hour, are 5.616e17 FLOPs."""
    found = budget(5.616e17, Cluster("A100", mfu=0.5, price=2.0), "bf16")
    assert found["seconds"] == pytest.approx(3600)
    assert found["gpu_hours"] == pytest.approx(1)
    assert found["money"] == pytest.approx(2)
    assert found["peak_flops"] == 312e12


def test_many_gpus_divide_the_time_and_keep_the_money() -> None:
    one = budget(1e20, Cluster("H100", price=3.0), "bf16")
    eight = budget(1e20, Cluster("H100", 8, efficiency=1.0, price=3.0), "bf16")
    assert eight["seconds"] == pytest.approx(one["seconds"] / 8)
    assert eight["money"] == pytest.approx(one["money"])
    less = budget(1e20, Cluster("H100", 8, efficiency=0.5, price=3.0), "bf16")
    assert less["seconds"] == pytest.approx(one["seconds"] / 4)
    assert less["money"] == pytest.approx(2 * one["money"])


def test_efficiency_is_assumed_where_none_is_said() -> None:
    kept = [budget(1e20, Cluster("H100", n), "bf16")["efficiency"] for n in (1, 8, 9, 64)]
    assert kept == [assumed_efficiency(n) for n in (1, 8, 64, 64)]
    assert kept[0] == 1
    assert kept[0] > kept[1] > kept[2]


@pytest.mark.parametrize(
    ("field", "less", "more"),
    [("mfu", 0.3, 0.5), ("gpus", 2, 4), ("efficiency", 0.5, 0.9)],
)
def test_more_of_it_is_faster(field: str, less: float, more: float) -> None:
    settings: list[dict[str, Any]] = [{"gpus": 8, field: value} for value in (less, more)]
    slow, fast = (budget(1e18, Cluster("L4", **s), "bf16")["seconds"] for s in settings)
    assert fast < slow


def test_without_a_price_there_is_no_money() -> None:
    assert budget(1e18, Cluster("L4"), "bf16")["money"] is None
    assert budget(1e18, Cluster("L4", price=0.0), "bf16")["money"] == 0


def test_float32_is_tf32_where_there_is_such_a_thing() -> None:
    assert Cluster("A100").peak("fp32") == 156e12
    assert Cluster("T4").peak("fp32") == 8.1e12
    assert (Cluster("T4").best_precision(), Cluster("A100").best_precision()) == ("fp16", "bf16")
    with pytest.raises(UserError, match="T4 does not compute in bf16; it can be fp16 or fp32"):
        Cluster("T4").peak("bf16")


def test_every_gpu_is_known_by_its_own_name() -> None:
    assert [known_gpu(name.lower()) for name, _ in GPUS] == [name for name, _ in GPUS]
    assert set(MEMORY) == {name for name, _ in GPUS}
    assert all(gpu_peak(name, "fp32") for name, _ in GPUS)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"gpu": "H101"}, "unknown gpu 'H101'; did you mean 'H100'"),
        ({"gpu": "H100", "gpus": 0}, "gpus must be at least 1"),
        ({"gpu": "H100", "mfu": 0.0}, "mfu is a share, above 0 and at most 1, not 0.0"),
        ({"gpu": "H100", "mfu": 40.0}, "40 % is 0.4"),
        ({"gpu": "H100", "mfu": 400.0}, "at most 1, not 400.0$"),
        ({"gpu": "H100", "mfu": float("nan")}, "mfu is a share"),
        ({"gpu": "H100", "efficiency": 1.01}, "efficiency is a share"),
        ({"gpu": "H100", "price": -1.0}, "price must be 0 or more"),
        ({"gpu": "H100", "price": float("inf")}, "price must be 0 or more, and finite"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        Cluster(**settings)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (20, "20.0 seconds"),
        (90, "1.5 minutes"),
        (5400, "1.5 hours"),
        (3.6e5, "4.2 days"),
        (1e8, "3.2 years"),
    ],
)
def test_durations_have_a_unit_that_suits(seconds: float, words: str) -> None:
    assert long_duration(seconds) == words


# ── the command line ────────────────────────────────────────────────────────────────────────────

RUN = [
    "estimate",
    "gpt2",
    "--gpu",
    "h100",
    "--gpus",
    "8",
    "--tokens",
    "20x",
    "--batch_size",
    "512",
    "--price",
    "2.5",
]


def test_estimate_says_time_and_money(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    tokens = 20 * count_parameters(GPTConfig())
    assert 0 <= found["run"]["tokens"] - tokens < 512 * 1024
    spent, cost = found["run"]["tokens"] * training_flops(GPTConfig()), found["budget"]
    assert cost["seconds"] == pytest.approx(spent / (8 * 989.5e12 * 0.4 * 0.95))
    assert cost["gpu_hours"] == pytest.approx(8 * cost["seconds"] / 3600)
    assert cost["money"] == pytest.approx(2.5 * cost["gpu_hours"])
    assert found["memory"]["available"] == 80 * 10**9
    assert found["memory"]["micro_batch"] == 64  # of one GPU
    assert (
        cost["memory_per_gpu"]["copies"]["largest_micro_batch"]
        == (found["memory"]["largest_micro_batch"])
    )
    assert main(RUN) == 0
    rows = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert rows["time on 8 × H100"].strip() == long_duration(cost["seconds"])
    assert rows["GPU-hours"].strip() == f"{cost['gpu_hours']:,.1f}"
    assert rows["money"].strip() == f"{cost['money']:,.2f}, at 2.5 a GPU-hour"
    assert "spread over them (FSDP2)" in rows


def test_memory_and_precision_may_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, "--json", "--memory", "24GB", "--precision", "fp32", "--mfu", "0.2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["memory"]["available"] == 24 * 10**9
    assert found["budget"]["peak_flops"] == 494.7e12
    assert found["budget"]["mfu"] == 0.2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("", "with micro-batch 64, which is all that batch_size gives each"),
        ("--memory 24GB", "with micro-batch 32, the largest that fits into 24.0 GB"),
        ("--micro_batch 8", "with micro-batch 8, as asked; 64 fits into 80.0 GB"),
        ("--micro_batch 64 --memory 24GB", "with micro-batch 64, too much for 24.0 GB; 32 fits"),
        ("--memory 1GB", "with micro-batch 1, too much for 1.0 GB"),
    ],
)
def test_it_says_whose_micro_batch_it_is(
    options: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*RUN, *options.split()]) == 0
    (row,) = (row for row in capsys.readouterr().out.splitlines() if "a whole copy" in row)
    assert row.endswith(says)


def test_checkpointing_costs_time(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = []
    for again in ("false", "true"):
        assert main([*RUN, "--json", "--gradient_checkpointing", again]) == 0
        seconds.append(json.loads(capsys.readouterr().out)["budget"]["seconds"])
    assert 1.1 < seconds[1] / seconds[0] < 4 / 3


def test_without_a_gpu_nothing_is_said_of_money(capsys: pytest.CaptureFixture[str]) -> None:
    device = ["--memory", "1GB", "--device", "cpu"]
    assert (
        main(["estimate", "gpt2", "--json", "--tokens", "1.5k", "--batch_size", "1", *device]) == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert "budget" not in found
    assert found["run"]["steps"] == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--gpus 8", "--gpus needs --gpu, such as --gpu H100"),
        ("--price 2", "--price needs --gpu"),
        ("--gpu H101", "unknown gpu 'H101'; did you mean 'H100'"),
        ("--gpu H100 --gpus 0", "--gpus must be at least 1"),
        ("--gpu H100 --gpus 1.5", "--gpus must be of type int, not '1.5'"),
        ("--gpu H100 --gpus 3", "batch_size 16 does not divide by 3 GPUs; --batch_size 15 does"),
        ("--gpu H100 --gpus 64", "--batch_size 64 does"),
        ("--gpu H100 --gpus 8 --micro_batch 4", "each GPU has 2 of batch_size 16, which does not"),
        ("--gpu H100 --mfu 40", "--mfu is a share, above 0 and at most 1, not 40.0"),
        ("--gpu H100 --price -1", "--price must be 0 or more"),
        ("--gpu T4 --precision bf16", "T4 does not compute in bf16"),
        ("--gpu H100 --device cpu", "leave one of them out"),
        ("--tokens many", "--tokens must be a number such as 300B"),
        ("--tokens 0", "--tokens must be at least 1 and below 1e18, not 0"),
        ("--tokens 1e30", "--tokens must be at least 1 and below 1e18, not 1e30"),
        ("--tokens -9e9", "--tokens must be a number such as 300B or 2.5e9"),
        ("--tokens 9e9 --steps 5", "leave it or --steps out"),
        ("--gpu H100 --efficiency 1.5", "--efficiency is a share, above 0 and at most 1, not 1.5"),
    ],
)
def test_bad_options_are_one_line(
    options: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["estimate", "gpt2", *options.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert len(err.splitlines()) == 1


def test_no_torch_for_gpus_that_are_elsewhere() -> None:
    code = f"import sys; from gpt2lib.cli import main; main({RUN!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


# ── the table ───────────────────────────────────────────────────────────────────────────────────


def test_the_table_has_every_size_and_number_of_gpus() -> None:
    args = budget_script.options([])
    time, memory, said = budget_script.document(args).split("\n\n", 2)
    rows = [line.strip("| ").split(" | ") for line in time.splitlines()[2:]]
    assert [row[0] for row in rows] == ["124M", "124M", "350M", "350M", "1.5B", "1.5B"]
    flops = 3e11 * training_flops(GPTConfig.preset("gpt2-xl"))
    hours = flops / (989.5e12 * 0.4) / 3600
    assert rows[-1][3:5] == [long_duration(3600 * hours), f"{2.5 * hours:,.0f}"]
    assert rows[-1][7] == long_duration(3600 * hours / (64 * assumed_efficiency(64)))
    assert len(memory.splitlines()) == 2 + 9
    assert "40% of its data sheet's 989.5 TFLOP/s" in said
    assert "measured none" in said


def test_the_page_shows_what_the_command_prints() -> None:
    """If this fails, put what `python benchmarks/studies/budget.py` prints at the page's end."""
    page = (ROOT / "benchmarks" / "studies" / "SCALING.md").read_text(encoding="utf-8")
    assert page.endswith("\n\n" + budget_script.document(budget_script.options([])) + "\n")


def test_the_table_on_another_gpu() -> None:
    args = budget_script.options(["--gpu", "T4", "--price", "0"])
    page = budget_script.document(args)
    assert "does not fit" in page
    assert "65 TFLOP/s in fp16" in page


# ── exponents ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("power", "factor"), [(1.0, 3.0), (2.0, 1e-6), (0.0, 5.0), (-0.5, 40.0)])
def test_the_exponent_of_a_power_law_is_found(power: float, factor: float) -> None:
    sizes = [1, 2, 8, 64, 100]
    assert exponent(sizes, [factor * size**power for size in sizes]) == pytest.approx(power)


def test_the_exponent_is_that_of_the_line_with_the_least_squares() -> None:
    """Through log2 points (0, 0), (1, 0), (2, 3) the slope is 3/2."""
    assert exponent([1, 2, 4], [1, 1, 8]) == pytest.approx(1.5)
    with pytest.raises(ValueError, match="two different sizes"):
        exponent([4, 4], [1, 2])


def test_sweeps_are_fitted_apart_and_in_their_upper_half() -> None:
    """Cost 100 + size²: the constant hides the square where size is small."""
    rows: list[dict[str, Any]] = []
    for sweep, power in (("width", 2), ("depth", 1)):
        for size in (1, 4, 16, 256, 1024):
            cost = {"ms": {1: 100 + size**power}, "flops": size**power}
            rows.append({"sweep": sweep, "size": size, **cost, "bytes": 7, "estimated_bytes": size})
    found = exponents(rows, [1])
    assert list(found) == ["width", "depth"]
    assert found["width"]["FLOPs"] == pytest.approx([2, 2])
    assert found["depth"]["FLOPs"] == pytest.approx([1, 1])
    assert found["width"]["bytes"] == pytest.approx([0, 0], abs=1e-9)
    whole, upper = found["width"]["ms, 1 thr."]
    assert whole < upper < 2
    assert upper == pytest.approx(exponent([16, 256, 1024], [356, 65636, 1048676]))


def test_the_report_says_every_point_and_exponent(capsys: pytest.CaptureFixture[str]) -> None:
    shares = {"attention, scores and sums": 0.25, "output head": 0.5}
    rows = [
        {
            **{"sweep": "depth", "size": n, "tokens": 64, "flops": n, "parameters": 10**6 * n},
            **{"ms": {1: 8.0 * n, 2: 4.0 * n}, "tokens_per_second": {1: 8000 / n, 2: 16000 / n}},
            **{"mfu": {1: 0.5, 2: 0.25}, "bytes": 10**7 * n, "estimated_bytes": 11 * 10**6 * n},
            "shares": shares,
        }
        for n in (1, 2, 4)
    ]
    report(rows, exponents(rows, [1, 2]), [1, 2])
    out = capsys.readouterr().out
    point = next(line for line in out.splitlines() if line.startswith("| depth | 4 |"))
    cells = point.strip("| ").split(" | ")
    assert cells[3:6] == ["4.00 M", "32.0", "16.0"]
    assert cells[-4:] == ["2.00", "40.0 MB", "44.0 MB", "1.10"]  # speed-up, peak, estimated, ratio
    assert "| depth | 1.00, 1.00 | 1.00, 1.00 | 1.00, 1.00 | 1.00, 1.00 | 1.00, 1.00 |" in out
    assert "depth, 1 to 4: MFU 25% → 25%; of the FLOPs, attention's T² part 25% → 25%" in out
