"""`predict` and `reveal`: a guess before a result that surprises, and both side by side after it.

    predict("first-loss", ...)      # a cell of its own; a number in place of ... is a guess
    reveal("first-loss", loss, unit="nats")

A guess counts if it was made before the result was shown. Nothing here stops a notebook.
"""

from __future__ import annotations

import contextlib
import html
import math
import os
import re
import statistics
from typing import Any

from gpt2lib.course import progress_file
from gpt2lib.course.readable import brief
from gpt2lib.course.screen import show
from gpt2lib.course.values import number

GOOD = 0.1
"""A guess is good if it is off by at most this share of the result."""

_session: dict[str, dict[str, Any]] = {}
"""Guesses of this kernel, so that they work without a file."""
_shown: dict[str, Any] = {}
"""Results that this kernel has shown."""


def predict(id: str, value: Any) -> None:
    """Keep a guess.

    Args:
        id: words joined by hyphens, unique over the course; `reveal` uses the same.
        value: a number, a word, or True or False. None and `...` are no guess.
    """
    value = number(value)
    kept = _entry(id)
    if value is None or value is ...:
        if kept is None:
            _say(f"○ {id}: no guess yet. Put one in place of the dots, or go on without.")
        else:
            _say(f"○ {id}: your guess was {_text(kept['guess'])}.")
    elif not _can_be_kept(value):
        _say(f"⚠ {id}: a guess is a number, a word, True or False; this is {brief(value, 60)}.")
    elif kept is not None and kept["actual"] is not None and kept["guess"] != value:
        _say(f"○ {id}: the result is known, so your first guess, {_text(kept['guess'])}, counts.")
    elif kept is None and id in _shown:
        _say(f"○ {id}: the result was shown already, so {_text(value)} is not counted as a guess.")
    else:
        if kept is None or kept["guess"] != value:
            _keep(id, {"notebook": _notebook(), "guess": value, "actual": None})
        _say(f"● {id}: your guess is {_text(value)}.")


def reveal(id: str, actual: Any, unit: str = "") -> None:
    """Show a result beside the guess that was made for it.

    Args:
        id: as given to `predict`.
        actual: the result; a tensor or array of one number is fine.
        unit: what is counted, such as "nats per token".
    """
    actual, kept = number(actual), _entry(id)
    after = f" {unit}" if unit else ""
    _shown[id] = actual
    if kept is None:
        _say(f"{id}: the result is {_text(actual)}{after}; no guess was made.")
        return
    if _can_be_kept(actual) and kept["actual"] != actual:
        _keep(id, {**kept, "actual": actual})
    guess = _text(kept["guess"])
    cells = {"your guess": guess + after, "the result": _text(actual) + after}
    cells["off by"] = _distance(kept["guess"], actual)
    rows = "".join(f"<tr><th>{k}</th><td>{html.escape(v)}</td></tr>" for k, v in cells.items())
    text = f"{id}: " + ", ".join(f"{k} {v}" for k, v in cells.items())
    show(text, html=f"<table><caption>{html.escape(id)}</caption>{rows}</table>")


def summary(guesses: dict[str, dict[str, Any]]) -> str:
    """Return one line on how good the guesses were, or "" if there are none with a result."""
    made = [(g["guess"], g["actual"]) for g in guesses.values() if g["actual"] is not None]
    if not made:
        return ""
    plain = [(g, a) for g, a in made if _is_number(g) and _is_number(a)]
    others = [(g, a) for g, a in made if (g, a) not in plain]
    said = [f"{len(made)} guess{'es' if len(made) > 1 else ''}"]
    if plain:
        good = sum(abs(g - a) <= GOOD * abs(a) for g, a in plain)
        said.append(f"{good} of {len(plain)} numbers within {GOOD:.0%} of the result")
        factors = [f for g, a in plain if (f := _factor(g, a))]
        if factors:
            said.append(f"half of them within a factor of {statistics.median(factors):.2g}")
    if others:
        said.append(f"{sum(g == a for g, a in others)} of {len(others)} choices right")
    return ", ".join(said) + "."


def _distance(guess: Any, actual: Any) -> str:
    if not (_is_number(guess) and _is_number(actual)):
        return "nothing: right" if guess == actual else "a choice: the other one"
    if guess == actual:
        return "nothing: exactly right"
    off = _text(abs(guess - actual))
    share = f", {abs(guess - actual) / abs(actual):.0%} of the result" if actual else ""
    factor = _factor(guess, actual)
    more = f", a factor of {factor:.2g}" if factor and factor >= 1.5 else ""
    return f"{off}{share}{more}, too {'high' if guess > actual else 'low'}"


def _factor(guess: float, actual: float) -> float | None:
    ratio = guess / actual if actual else 0.0
    return max(ratio, 1 / ratio) if ratio > 0 and math.isfinite(ratio) else None


def _can_be_kept(value: Any) -> bool:
    return isinstance(value, bool | str) or _is_number(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _say(text: str) -> None:
    show(text, html=f'<div style="padding: 0.3em 0.8em">{html.escape(text)}</div>')


def _entry(id: str) -> dict[str, Any] | None:
    if id not in _session:
        with contextlib.suppress(OSError):
            return progress_file.load(progress_file.file()).guesses.get(id)
    return _session.get(id)


def _keep(id: str, entry: dict[str, Any]) -> None:
    _session[id] = entry
    path = progress_file.file()
    if path is not None:
        with contextlib.suppress(OSError):  # a read-only folder is no reason to stop
            kept = progress_file.load(path)
            kept.guesses[id] = entry
            progress_file.save(path, kept)


def _notebook() -> str:
    """Return the number of the notebook, if the server tells its name."""
    found = re.search(r"(\d\d)_[^/\\]*\.ipynb$", os.environ.get("JPY_SESSION_NAME", ""))
    return found[1] if found else ""
