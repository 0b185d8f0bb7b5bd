"""Figures that can be read in light and in dark, without colour vision, and without sight.

Colours: Okabe and Ito 2008, "Color Universal Design", without the yellow, which vanishes on
white. Curves differ in dash, too. The background is opaque and light, so that a figure looks the
same on every theme. matplotlib is imported only when something is drawn.
"""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt2lib.course.screen import shell
from gpt2lib.course.screen import show as show_output
from gpt2lib.runs.plots import DASHES, PALETTE, draw, draw_report
from gpt2lib.runs.plots import read_metrics as read_metrics  # for notebooks, beside the figures
from gpt2lib.utils.errors import UserError

DPI = 110


def style() -> None:
    """Set the course's figure style; `setup()` calls it."""
    import matplotlib
    from cycler import cycler

    matplotlib.rcParams.update(
        {
            "figure.figsize": (7.0, 3.8),
            "figure.dpi": DPI,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "figure.constrained_layout.use": True,
            "figure.constrained_layout.w_pad": 0.12,  # inches to the edge
            "figure.constrained_layout.h_pad": 0.12,
            "axes.facecolor": "white",
            "axes.prop_cycle": cycler(color=PALETTE) + cycler(linestyle=DASHES),
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.color": "#dddddd",
            "font.size": 11,
            "lines.linewidth": 2,
            "legend.frameon": False,
            "svg.hashsalt": "gpt2lib",
        }
    )


def show(fig: Any, name: str, alt: str) -> None:
    """Display a figure with its alt text as caption, and close it.

    `make render` sets GPT2LIB_FIGURES to a folder; the figure is then also written there as
    NAME.png.

    Args:
        fig: a matplotlib figure.
        name: words joined by hyphens, unique over the course.
        alt: what the figure shows, in a sentence or two, for those who cannot see it.

    Raises:
        UserError: if the alt text is missing or the name is not a file name.
    """
    import matplotlib.pyplot as plt
    from PIL import Image  # matplotlib needs it, too

    if len(alt.split()) < 4:
        raise UserError(f"figure {name!r} needs alt text: say in a sentence what it shows")
    if not name.replace("-", "").isalnum() or name != name.lower():
        raise UserError(f"figure name {name!r} must be lower-case words joined by hyphens")
    drawn, buffer = io.BytesIO(), io.BytesIO()
    fig.savefig(drawn, format="png", dpi=DPI, metadata={"Software": None})
    plt.close(fig)
    # The background is opaque; what says so of every point would be an eighth of the file.
    Image.open(drawn).convert("RGB").save(buffer, "PNG", optimize=True)
    folder = os.environ.get("GPT2LIB_FIGURES")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{name}.png").write_bytes(buffer.getvalue())
    text = f"Figure {name}: {alt}"
    if shell() is None:
        show_output(text)
        return
    png = base64.b64encode(buffer.getvalue()).decode("ascii")
    metadata = {"image/png": {"alt": alt}, "gpt2lib": {"figure": name, "alt": alt}}
    show_output(text, metadata=metadata, png=png)
    # JupyterLab and GitHub drop the alt text of an image output, so it is a caption, too.
    show_output(text, html=f"<p><small>{html.escape(alt)}</small></p>")


def loss_curve(runs: str | Path | Mapping[str, str | Path], bits_per_byte: bool = False) -> Any:
    """Return a figure of training and held-out loss by step.

    Args:
        runs: a run folder, or labels to run folders.
        bits_per_byte: draw held-out bits per byte only, which runs with different tokenizers
            can be compared by.
    """
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots()
    named = runs if isinstance(runs, Mapping) else {"": runs}
    if isinstance(runs, Mapping) or bits_per_byte:
        draw(ax, named, y="bits_per_byte" if bits_per_byte else "loss")
    else:
        draw_report(ax, Path(runs))  # as the run's own loss.png
    ax.legend()
    return fig


def heatmap(
    matrix: Any,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    *,
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    values: bool | None = None,
    unit: str = "",
    ax: Any = None,
) -> Any:
    """Return a figure of a matrix (rows, columns), with its values where there is room.

    Args:
        matrix: a 2-D tensor or array.
        rows: labels of the rows.
        columns: labels of the columns.
        title: above the matrix.
        xlabel: what the columns are.
        ylabel: what the rows are.
        values: whether to print the numbers; by default up to 12 columns.
        unit: what the colour bar measures; without one there is no bar.
        ax: draw into these axes instead of a new figure.
    """
    import matplotlib.pyplot as plt
    import numpy as np

    if hasattr(matrix, "detach"):
        matrix = matrix.detach().cpu().float().numpy()
    matrix = np.asarray(matrix, dtype=float)
    height, width = matrix.shape
    if ax is None:
        _, ax = plt.subplots(figsize=(1.6 + 0.5 * max(width, 6), 1.2 + 0.45 * max(height, 4)))
    # cividis is ordered by lightness and looks nearly the same to the colour-blind
    image = ax.imshow(np.ma.masked_invalid(matrix), cmap="cividis", aspect="auto")
    ax.grid(False)
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    ax.set_xticks(range(width), columns if columns is not None else [str(i) for i in range(width)])
    ax.set_yticks(range(height), rows if rows is not None else [str(i) for i in range(height)])
    if values if values is not None else width <= 12:
        for (i, j), value in np.ndenumerate(matrix):
            light = np.isfinite(value) and image.norm(value) > 0.5
            text = f"{value:.2f}" if np.isfinite(value) else "−∞" if value < 0 else "nan"
            ax.text(j, i, text, ha="center", va="center", fontsize=8,
                    color="black" if light or not np.isfinite(value) else "white")  # fmt: skip
    if unit:
        ax.figure.colorbar(image, ax=ax, label=unit)
    return ax.figure
