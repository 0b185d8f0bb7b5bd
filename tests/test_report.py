"""The loss curve and the metrics it is drawn from."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2lib.errors import UserError
from gpt2lib.report import BLUE, ORANGE, _draw, read_metrics, smooth, write_report

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


def test_a_damaged_line_in_the_middle_is_named(run: Path) -> None:
    path = run / "metrics.jsonl"
    rows = path.read_text(encoding="utf-8").splitlines()
    rows[4] = rows[4][:9]
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
    _draw(axes, lines(), run)
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
        "import sys; from gpt2lib.report import write_report; "
        "assert 'matplotlib' not in sys.modules; "
        "write_report(sys.argv[1]); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(run)], check=True, timeout=60)
