"""The loss curve and the metrics it is drawn from."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpt2lib.cli import main
from gpt2lib.cli.plot import table
from gpt2lib.runs.plots import (
    BLUE,
    ORANGE,
    draw_report,
    draw_runs,
    labels,
    points,
    read_metrics,
    smooth,
    write_report,
)
from gpt2lib.utils.errors import UserError

CONFIG = "batch_size: 4\nmodel: {block_size: 250}\n"


def lines(steps: int = 60) -> list[dict[str, float]]:
    """Return what a short run logs: a line for each update, and an evaluation every 20."""
    made: list[dict[str, float]] = [{"step": 0, "val_loss": 5.0, "val_bits_per_byte": 3.0}]
    for step in range(1, steps + 1):
        loss = 5 * math.exp(-step / 40) + 0.2 * (step % 2)
        made.append({"step": step, "loss": loss, "lr": 1e-3, "grad_norm": 1.0, "seconds": step})
        if step % 20 == 0:
            made.append({"step": step, "val_loss": loss + 0.1, "val_bits_per_byte": loss / 2})
    return made


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "plays"
    folder.mkdir()
    text = "".join(json.dumps(line) + "\n" for line in lines())
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")
    return folder


def test_metrics_are_read_as_written(run: Path) -> None:
    assert read_metrics(run) == lines()


@pytest.mark.parametrize("torn", [b'{"step": 61, "lo', b'{"note": "\xc3', b"6", b"\n"])
def test_a_torn_last_line_is_left_out(run: Path, torn: bytes) -> None:
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(torn)
    assert read_metrics(run) == lines()


@pytest.mark.parametrize("line", ['{"step": 1, "lo', "[1]", '{"loss": 1}', '{"step": "x"}'])
def test_a_damaged_line_in_the_middle_is_named(run: Path, line: str) -> None:
    path = run / "metrics.jsonl"
    rows = path.read_text(encoding="utf-8").splitlines()
    rows[4] = line
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="line 5 is damaged"):
        read_metrics(run)


def test_a_folder_without_metrics_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no metrics\.jsonl"):
        write_report(tmp_path)


def test_nothing_to_draw_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="no update yet"):
        write_report(tmp_path)
    assert not (tmp_path / "loss.png").exists()


def test_smoothing_neither_shifts_nor_shortens() -> None:
    line = [2.0 * x + 1 for x in range(30)]
    assert smooth(line, 7)[:-3] == pytest.approx(line[:-3])
    assert smooth(line, 7)[-1] == pytest.approx(sum(line[-4:]) / 4)
    assert smooth([0, 3, 0, 3, 0], 3) == pytest.approx([0, 1, 2, 1, 1.5])
    assert smooth([4.0], 9) == [4.0]


def test_the_png_is_opaque_and_shows_both_curves(run: Path) -> None:
    from PIL import Image

    path = write_report(run)
    assert path == run / "loss.png"
    with Image.open(path) as image:
        assert image.size == (960, 540)
        pixels = image.convert("RGBA").get_flattened_data()
    seen = set(pixels)
    assert all(alpha == 255 for *_, alpha in seen)
    for colour in (BLUE, ORANGE):
        wanted = tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
        assert (*wanted, 255) in seen


def test_the_axes_are_labelled_and_the_data_is_all_there(run: Path) -> None:
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    draw_report(axes, run)
    assert axes.get_title() == "plays"
    assert axes.get_xlabel() == "update (step)"
    assert axes.get_ylabel() == "loss (nats per token)"
    every, smoothed, held_out = axes.get_lines()
    assert list(every.get_xdata()) == list(smoothed.get_xdata()) == list(range(1, 61))
    assert list(held_out.get_xdata()) == [0, 20, 40, 60]
    assert every.get_ydata()[1] == lines()[2]["loss"]
    top = axes.child_axes[0]
    assert top.get_xlabel() == "tokens trained on (millions)"
    assert top._functions[0](2000) == pytest.approx(2.0)  # 2000 updates of 4 x 250 tokens


def test_a_loss_that_is_not_finite_does_not_spoil_the_curve(run: Path) -> None:
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 61, "loss": NaN}\n{"step": 62, "loss": 1.0}\n')
    assert write_report(run).stat().st_size > 10_000


def test_drawing_leaves_matplotlib_s_global_state_alone(run: Path) -> None:
    code = (
        "import sys; from gpt2lib.runs.plots import write_report; "
        "assert 'matplotlib' not in sys.modules; "
        "write_report(sys.argv[1]); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(run)], check=True, timeout=60)


# ── several runs ────────────────────────────────────────────────────────────────────────────────


BAD = [
    {"step": 61, "skipped": "loss nan", "in_a_row": 1},
    {"step": 62, "skipped": "gradient inf", "in_a_row": 2},
    {"step": 63, "loss": 9.0, "lr": 1e-3, "grad_norm": 5.0, "seconds": 63, "spike": True},
    {"step": 64, "loss": 1.5, "lr": 1e-3, "grad_norm": 5.0, "seconds": 64, "mfu": 0.25},
]


@pytest.fixture
def two(run: Path) -> list[Path]:
    """A run without, and one with skipped updates, a spike, and slower updates."""
    other = run.parent / "deeper" / "bad"
    other.mkdir(parents=True)
    rows = [{**line, "tokens_per_second": 500.0} if "loss" in line else line for line in lines()]
    text = "".join(json.dumps(line) + "\n" for line in [*rows, *BAD])
    (other / "metrics.jsonl").write_text(text, encoding="utf-8")
    (other / "config.yaml").write_text("batch_size: 2\nmodel: {block_size: 250}\n")
    return [run, other]


def test_the_report_copes_with_skipped_updates_and_spikes(two: list[Path]) -> None:
    assert write_report(two[1]).stat().st_size > 10_000


def test_points_by_step_tokens_and_seconds(two: list[Path]) -> None:
    metrics = read_metrics(two[1])
    by = {x: points(two[1], metrics, x, "loss") for x in ("step", "tokens", "seconds")}
    assert by["step"][-2:] == [(63.0, 9.0), (64.0, 1.5)]  # nothing of 61 and 62
    assert by["tokens"][-1] == pytest.approx((64 * 2 * 250 / 1e6, 1.5))
    assert by["seconds"][-1] == (64.0, 1.5)
    held_out = points(two[1], metrics, "seconds", "bits_per_byte")
    assert [place for place, _ in held_out] == [0, 20, 40, 60]  # the time of the update before
    assert held_out[0][1] == 3.0


def test_tokens_need_a_configuration(two: list[Path]) -> None:
    (two[0] / "config.yaml").unlink()
    with pytest.raises(UserError, match="--x step"):
        draw_runs(two, two[0] / "a.png", x="tokens")


def test_runs_are_named_without_the_folders_they_share(tmp_path: Path) -> None:
    assert labels([tmp_path / "runs" / "a", tmp_path / "runs" / "b"]) == ["a", "b"]
    assert labels([tmp_path / "x" / "a", tmp_path / "y" / "a"]) == ["x/a", "y/a"]
    assert labels([tmp_path / "a", tmp_path / "a" / "b"]) == ["a", "a/b"]
    assert labels([tmp_path / "runs" / "a"]) == ["a"]


def test_the_table_counts_what_happened(two: list[Path]) -> None:
    good, bad = table(two)
    assert (good["run"], bad["run"]) == ("plays", "deeper/bad")
    assert (good["steps"], good["skipped"], good["spikes"]) == (60, 0, 0)
    assert (bad["steps"], bad["skipped"], bad["spikes"]) == (64, 2, 1)
    assert bad["loss"] == 1.5 and bad["tokens_per_second"] == 500.0
    assert good["tokens_per_second"] is None
    evaluated = [line for line in lines() if "val_loss" in line]
    best = min(evaluated, key=lambda line: line["val_loss"])
    assert (good["val_loss"], good["at_step"]) == (best["val_loss"], best["step"])


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The axes that were filled and written."""
    from matplotlib.figure import Figure

    kept: list[Any] = []
    savefig = Figure.savefig

    def keep(self: Any, *args: Any, **options: Any) -> None:
        kept.append(self.axes[0])
        savefig(self, *args, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return kept


def test_curves_differ_in_colour_and_dash_and_carry_their_names(
    two: list[Path], drawn: list[Any]
) -> None:
    out = draw_runs(two, two[0] / "both.png", x="tokens")
    assert out.stat().st_size > 10_000
    (axes,) = drawn
    assert axes.get_xlabel() == "tokens trained on (millions)"
    assert axes.get_ylabel() == "loss (nats per token)"
    named = {line.get_label(): line for line in axes.get_lines() if line.get_label()[0] != "_"}
    assert list(named) == ["plays", "plays, held out", "deeper/bad", "deeper/bad, held out"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(named)
    first, second = named["plays"], named["deeper/bad"]
    assert first.get_color() != second.get_color()
    assert first.get_linestyle() != second.get_linestyle()
    assert named["plays, held out"].get_color() == first.get_color()
    assert list(named["plays, held out"].get_ydata()) == [
        line["val_loss"] for line in lines() if "val_loss" in line
    ]


def test_smoothing_is_as_wide_as_asked(two: list[Path], drawn: list[Any]) -> None:
    losses = [line["loss"] for line in lines() if "loss" in line]
    for width in (1, 9):
        draw_runs(two[:1], two[0] / "one.png", y="loss", width=width)
        curve = next(line for line in drawn[-1].get_lines() if line.get_label() == "plays")
        assert list(curve.get_ydata()) == pytest.approx(smooth(losses, width))
    draw_runs(two[:1], two[0] / "one.png", y="val_loss", width=9)
    (points_drawn,) = drawn[-1].get_lines()
    assert points_drawn.get_ydata()[0] == 5.0  # held-out points stay where they are


def test_a_metric_that_a_run_lacks_is_refused_with_what_it_has(two: list[Path]) -> None:
    draw_runs(two[1:], two[0] / "mfu.png", y="mfu")
    with pytest.raises(UserError, match="plays has no mfu in"):
        draw_runs(two, two[0] / "mfu.png", y="mfu")
    with pytest.raises(UserError, match=r"must end in \.png or"):
        draw_runs(two, two[0] / "picture.doc")
    with pytest.raises(UserError, match="cannot write"):
        draw_runs(two, two[0] / "nowhere" / "a.png")


def test_the_command_draws_and_prints(
    two: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(two[0].parent)
    assert main(["plot", *map(str, two), "--x", "seconds", "--y", "grad_norm"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split()[:3] == ["run", "steps", "last"]
    assert out[2].split() == [
        "deeper/bad",
        "64",
        "1.5000",
        out[2].split()[3],
        "60",
        "500",
        "2",
        "1",
    ]
    assert out[-1] == "figure: compare-grad_norm.png" and Path("compare-grad_norm.png").is_file()
    assert main(["plot", str(two[0])]) == 0
    assert f"figure: {two[0] / 'loss.png'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere has no metrics.jsonl; it is not the folder of a run"),
        (["plays", "--y", "los"], "--y cannot be 'los'"),
        (["plays", "--x", "hours"], "--x cannot be 'hours'; there are step, tokens, seconds"),
        (["plays", "--smooth", "0"], "--smooth must be at least 1, not 0"),
        ([], "plot needs RUN"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str],
    said: str,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(run.parent)
    assert main(["plot", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_the_evaluation_on_all_of_the_text_is_not_joined_to_those_on_a_part(run: Path) -> None:
    from matplotlib.figure import Figure

    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        line = {"step": 60, "val_loss": 1.5, "val_bits_per_byte": 0.7, "complete": True}
        file.write(json.dumps(line) + "\n")
    axes = Figure().add_subplot()
    draw_report(axes, run)
    of = {line.get_label(): line for line in axes.get_lines()}
    assert list(of["held out"].get_xdata()) == [0, 20, 40, 60]
    whole = of["held out, all of the text"]
    assert list(whole.get_ydata()) == [1.5] and whole.get_linestyle() == "None"


@pytest.mark.parametrize("by", ["fingerprint", "configuration"])
def test_runs_with_different_tokenizers_are_compared_by_bits_per_byte(
    run: Path, by: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    other = run.parent / "other"
    for folder, name, size in ((run, "aa", 512), (other, "bb", 65)):
        folder.mkdir(exist_ok=True)
        if folder is other:
            (other / "metrics.jsonl").write_bytes((run / "metrics.jsonl").read_bytes())
        model = f"model: {{block_size: 250, vocab_size: {size}}}\n"
        (folder / "config.yaml").write_text("batch_size: 4\n" + model, encoding="utf-8")
        if by == "fingerprint":
            step = folder / "checkpoints" / "step-00000060"
            step.mkdir(parents=True)
            (step / "state.json").write_text(json.dumps({"tokenizer": name}), encoding="utf-8")
    assert main(["plot", str(run), str(other)]) == 0
    assert "different tokenizers" in capsys.readouterr().out
    assert Path("compare-bits_per_byte.png").is_file()
    assert main(["plot", str(run), str(run)]) == 0
    assert "different tokenizers" not in capsys.readouterr().out
    assert Path("compare-loss.png").is_file()
