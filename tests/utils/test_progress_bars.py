"""A bar in a file is a plain line now and then."""

import contextlib
import io
import sys

import pytest

from gpt2lib.utils import progress


@pytest.fixture(autouse=True)
def no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests of the same process may have started a kernel's library."""
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)


def written(terminal: bool = False, updates: int = 3, **options: object) -> str:
    """Return what a bar of four units writes to stderr, from the first of them on."""
    stream = io.StringIO()
    stream.isatty = lambda: terminal  # type: ignore[method-assign]
    with (
        contextlib.redirect_stderr(stream),
        progress.progress_bar(4, "step", initial=1, **options) as bar,
    ):
        bar.set_postfix(loss="2.5", refresh=False)
        for _ in range(updates):
            bar.update()
    return stream.getvalue()


def test_lines_in_place_of_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 1e-9)
    lines = written().splitlines()
    assert "\r" not in written() and "█" not in written()
    assert lines[0].startswith("2 of 4 step, ") and lines[-1].startswith("4 of 4 step, ")
    assert lines[-1].endswith("loss=2.5")


def test_what_is_done_within_half_a_minute_writes_nothing() -> None:
    assert progress.EVERY == 30
    assert written(desc="encoding", unit_scale=True, leave=False) == ""


def test_a_terminal_has_a_bar() -> None:
    assert "\r" in written(terminal=True)
    assert written(terminal=True, shown=False) == ""
