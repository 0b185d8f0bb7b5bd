"""The first cell of every notebook, and the two helpers that the cells after it lean on."""

from __future__ import annotations

import contextlib
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from gpt2lib.course.screen import shell
from gpt2lib.utils.errors import UserError

T = TypeVar("T")

SEED = 1337


def fast_mode() -> bool:
    """Return whether GPT2LIB_FAST asks for small numbers, as the tests of the notebooks do."""
    return os.environ.get("GPT2LIB_FAST", "") not in ("", "0")


def budget(*, full: T, fast: T) -> T:
    """Return `full`, or `fast` when the environment variable GPT2LIB_FAST is 1.

    This is the only place that reads the variable. Fast mode shrinks the work, never the checks.
    """
    return fast if fast_mode() else full


def setup(seed: int = SEED) -> None:
    """Prepare a notebook: seeds, threads, printing, figures, quiet libraries, short errors.

    Args:
        seed: for Python's, NumPy's and PyTorch's generators.
    """
    for name, value in {
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",  # it warns at every fork otherwise
    }.items():
        os.environ.setdefault(name, value)
    import numpy as np
    import torch

    from gpt2lib.course import plots

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if "OMP_NUM_THREADS" not in os.environ:
        # In a container PyTorch counts the host's cores; more threads than cores is slower.
        torch.set_num_threads(min(torch.get_num_threads(), _cores()))
    np.set_printoptions(precision=4, suppress=True, linewidth=100)
    printing: Any = torch.set_printoptions  # untyped in PyTorch
    printing(precision=4, sci_mode=False, linewidth=100)
    plots.style()
    one_line_errors()
    if fast_mode():
        print("Fast mode: the numbers below are smaller than the text says.")


def one_line_errors() -> None:
    """Let a `UserError` in a cell be one line, as on the command line.

    With the environment variable GPT2LIB_DEBUG=1 (in a notebook `%env GPT2LIB_DEBUG=1`) the
    whole traceback is shown. Outside of IPython nothing is changed.
    """
    running = shell()
    if running is None:
        return

    def show_error(self: Any, kind: Any, error: Any, trace: Any, tb_offset: Any = None) -> None:
        if os.environ.get("GPT2LIB_DEBUG", "") in ("", "0"):
            message = " ".join(str(error).split())
            # IPython asks the exception itself for the lines, if it has this method.
            error._render_traceback_ = lambda: [f"{kind.__name__}: {message}"]
        self.showtraceback((kind, error, trace), tb_offset=tb_offset)

    running.set_custom_exc((UserError,), show_error)


def kept_results(name: str) -> Path:
    """Return a table of results that took too long to be made again in a notebook.

    Its first lines say which command made it, or the notebook does.
    """
    return Path(__file__).parent / "results" / name


def _cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def expect_error(kind: type[BaseException], match: str | None = None) -> Iterator[None]:
    """Run a block that must fail, and print its error as one line.

    Args:
        kind: the error that must be raised.
        match: a regular expression that the message must contain.

    Raises:
        AssertionError: if nothing was raised, or the message does not match. An error of
            another kind passes through.
    """
    try:
        yield
    except kind as error:
        message = " ".join(str(error).split())
        if match is not None and not re.search(match, message):
            raise AssertionError(f"expected a message with {match!r}, got: {message}") from error
        print(f"{type(error).__name__}: {message}")
    else:
        raise AssertionError(f"expected {kind.__name__}, but nothing was raised")
