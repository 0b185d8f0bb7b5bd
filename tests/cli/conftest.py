"""What tests of the command line share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gpt2lib.cli import main


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must be refused: exit code 2, one line, which is returned."""

    def call(*argv: str | Path) -> str:
        capsys.readouterr()
        assert main([str(word) for word in argv]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert "Traceback" not in err
        lines = [line for line in err.splitlines() if line.startswith("gpt2lib: ")]
        assert len(lines) == 1
        assert err.endswith(lines[0] + "\n")  # progress may come before it, nothing after
        return lines[0].removeprefix("gpt2lib: ")

    return call
