"""Fixtures that tests of several rooms use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from gpt2lib.config import TrainConfig
    from gpt2lib.training.loop import Trainer

# The first call of PyTorch on a busy machine takes longer than an example may by default.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where prepared texts are kept, for as long as the tests run."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def private_cache(cache_folder: Path) -> Iterator[None]:
    """Let nothing be found, and nothing left, in the cache of the user.

    A module asks for it with `pytestmark = pytest.mark.usefixtures("private_cache")`.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPT2LIB_CACHE", str(cache_folder))
        yield


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 420 training tokens: 13 windows of 32, so 8 steps of 4 samples cross epochs."""
    from tiny import verse

    path = tmp_path_factory.mktemp("text") / "verse.txt"
    path.write_text(verse(40), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path, text: Path) -> Path:
    """A complete run of the settings of `tiny.config`; nobody may change it."""
    from tiny import config

    from gpt2lib.training.loop import train

    run = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPT2LIB_CACHE", str(cache_folder))
        train(config(text), run)
    return run


@pytest.fixture
def opened() -> Iterator[Callable[[TrainConfig, Path], Trainer]]:
    """Make trainers of settings and a folder; the folders stay open until the test ends."""
    from gpt2lib.runs.folder import open_run
    from gpt2lib.training.loop import Trainer

    with ExitStack() as until_the_end:

        def make(config: TrainConfig, folder: Path) -> Trainer:
            return Trainer(config, until_the_end.enter_context(open_run(folder, config)))

        yield make
