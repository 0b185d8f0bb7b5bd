"""What is seen of a run in a notebook: a plot that grows, a line of numbers, a table of samples."""

from __future__ import annotations

import html
import io
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from gpt2lib.course import plots
from gpt2lib.course.screen import shell
from gpt2lib.runs.plots import read_metrics
from gpt2lib.utils.formats import read_jsonl, read_yaml

LONGEST_PAUSE = 5.0
"""Seconds between two looks, however long drawing takes."""

STALE = "as at {}; if that is long ago, nobody watches: run the cell again, and the plot goes on"
"""What stands above a plot that still grows: a closed browser or kernel leaves it as it is."""

RECENT = 50
"""Updates that the speed and the time left are taken from."""


class Watched(Protocol):
    """What is asked of a run here; `launch.LiveRun` answers."""

    out: Path

    @property
    def running(self) -> bool: ...
    @property
    def result(self) -> dict[str, Any] | None: ...
    @property
    def error(self) -> str | None: ...


def follow(run: Watched, refresh: float, until: int | None, figure: str | None) -> None:
    """Watch a run until it ends or reaches step `until`; see `LiveRun.follow`."""
    view = _View()
    try:
        while run.running and (until is None or last_step(run.out) < until):
            began = time.monotonic()
            view.update(progress_line(run), _picture(run.out))
            drawing = time.monotonic() - began
            # Drawing takes time from the training: a tenth at most, on a machine that is not busy.
            time.sleep(max(refresh, min(10 * drawing, LONGEST_PAUSE)))
    except KeyboardInterrupt:
        view.update(
            f"{progress_line(run)}\n"
            "Not watched any more, but it goes on: .follow() watches it again, .stop() stops it."
        )
        return
    view.update(progress_line(run))
    if not run.running and _metrics(run.out):
        words = re.findall(r"[a-z0-9]+", run.out.resolve().name.lower())  # of "lr0.003", too
        name = figure or "-".join(["training", *words])
        plots.show(plots.loss_curve(run.out), name, _alt(run.out))


def progress_line(run: Watched) -> str:
    """Say where a run is: steps, losses, speed and time left; or its result, or why it ended."""
    out, metrics = run.out, _metrics(run.out)
    where = f"{out.name}: step {last_step(out)} of {_steps(out) or '?'}"
    error, result = run.error, run.result
    if error is None and result is not None and not run.running:
        scores = "no held-out text"
        if "loss" in result:
            scores = f"held out {result['loss']:.3f} nats per token, " + (
                f"{result['bits_per_byte']:.3f} bits per byte"
            )
        minutes = result["train_seconds"] / 60
        return f"{out.name}: complete, {result['steps']} steps in {minutes:.1f} minutes; {scores}"
    if error is not None:
        return f"{where}; ended: {error}"
    if not run.running:
        return f"{where}; not running"
    losses = [f"loss {m:.3f}" for m in [_last(metrics, "loss")] if m is not None]
    losses += [f"held out {m:.3f}" for m in [_last(metrics, "val_loss")] if m is not None]
    return ", ".join([where if metrics else f"{out.name}: starting", *losses, *_pace(run, metrics)])


def _pace(run: Watched, metrics: list[dict[str, Any]]) -> list[str]:
    updates = [m for m in metrics if "seconds" in m][-RECENT - 1 :]
    steps = _steps(run.out)
    if len(updates) < 2 or steps is None:
        return []
    first, last = updates[0], updates[-1]
    each = (last["seconds"] - first["seconds"]) / max(1, last["step"] - first["step"])
    left = max(0.0, each * (steps - last["step"]))
    tokens = sorted(m["tokens_per_second"] for m in updates)[len(updates) // 2]
    return [f"{tokens:,.0f} tokens/s", f"{int(left // 60)}:{int(left % 60):02} left"]


def _metrics(out: Path) -> list[dict[str, Any]]:
    return read_metrics(out) if (out / "metrics.jsonl").is_file() else []


def last_step(out: Path) -> int:
    """Return how many updates a run has made, as its log says."""
    return max((m["step"] for m in _metrics(out)), default=0)


def _last(metrics: Sequence[dict[str, Any]], key: str) -> Any:
    return next((m[key] for m in reversed(metrics) if key in m), None)


def _steps(out: Path) -> int | None:
    """Return how many updates the run was asked to make."""
    path = out / "requested.yaml"
    return int(read_yaml(path)["steps"]) if path.is_file() else None


def _alt(out: Path) -> str:
    held_out = [m["val_loss"] for m in _metrics(out) if "val_loss" in m]
    text = f"Training loss of the run {out.resolve().name} by step"
    if len(held_out) > 1:
        text += f", and its held-out loss, from {held_out[0]:.2f} to {held_out[-1]:.2f} nats"
    return text + "."


def _picture(out: Path) -> bytes | None:
    """Return the loss curve so far as a PNG, or None before the first update."""
    import matplotlib.pyplot as plt

    if shell() is None or _last(_metrics(out), "loss") is None:
        return None
    fig, buffer = plots.loss_curve(out), io.BytesIO()
    fig.savefig(buffer, format="png", dpi=plots.DPI)
    plt.close(fig)
    return buffer.getvalue()


class _View:
    """One place in the notebook that is overwritten; in a terminal, a line for each change."""

    def __init__(self) -> None:
        self.handle: Any = None
        self.text = ""

    def update(self, text: str, png: bytes | None = None) -> None:
        """Show a text, and under it a picture."""
        if shell() is None:
            if text != self.text:
                print(text)
            self.text = text
            return
        import base64

        from IPython.display import DisplayHandle

        bundle = {"text/plain": text}
        if png is not None:
            image = base64.b64encode(png).decode("ascii")
            bundle["text/html"] = (
                f"<pre>{html.escape(text)}</pre><small>{STALE.format(time.strftime('%H:%M:%S'))}"
                '</small><br><img alt="Loss so far, by step" '
                f'src="data:image/png;base64,{image}">'
            )
        if self.handle is None:
            self.handle = DisplayHandle()
            self.handle.display(bundle, raw=True)
        else:
            self.handle.update(bundle, raw=True)


class Samples(tuple[tuple[int, str], ...]):
    """Samples of a run: pairs of step and text, shown as a table."""

    @classmethod
    def read(cls, out: Path, steps: Iterable[int] = ()) -> Samples:
        """Read a run's samples; with `steps`, for each the newest sample up to it."""
        lines = read_jsonl(out / "samples.jsonl", "step")
        every = {line["step"]: str(line["text"]) for line in lines}
        if steps:
            reached = [max((s for s in every if s <= step), default=None) for step in steps]
            every = {s: every[s] for s in reached if s is not None}
        return cls(sorted(every.items()))

    def __repr__(self) -> str:
        parts = [f"── step {step} ──\n{text.strip()}" for step, text in self]
        return "\n\n".join(parts) or "no samples yet"

    def _repr_html_(self) -> str:
        if not self:
            return "<em>no samples yet</em>"
        rows = "".join(
            f'<tr><td style="vertical-align: top">{step}</td><td style="text-align: left">'
            f'<pre style="white-space: pre-wrap">{html.escape(text.strip())}</pre></td></tr>'
            for step, text in self
        )
        return f"<table><tr><th>step</th><th>sample</th></tr>{rows}</table>"
