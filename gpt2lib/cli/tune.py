"""`gpt2lib tune`: a study over the settings of a run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2lib.cli.terminal import Options, aligned, command_line
from gpt2lib.config import load_config
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import expand

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Tune(Options):
    """Run a study: many short runs over a space of settings, drawn by Optuna.

    Everything lies in one folder. A study that was stopped or killed goes on with the same
    command.

    Attributes:
        study: what to try, as YAML: the base, the space, the budget of a trial.
        out: the study's folder; by default runs/ and the study's name.
        workers: processes side by side; by default as the study says.
        trials: trials to finish; by default as the study says.
        storage: sqlite, journal, or the URL of a database that machines share.
        report: only draw and print what was found so far.
        preset: only write the winner as this YAML file, which `gpt2lib train` takes.
    """

    usage = "STUDY.yaml [--out DIR] [--workers N] [--report] [--preset NAME.yaml]"
    arguments = ("study",)

    study: str
    out: str | None = None
    workers: int | None = None
    trials: int | None = None
    storage: str | None = None
    report: bool = False
    preset: str | None = None

    def __post_init__(self) -> None:
        for name in ("workers", "trials"):
            if getattr(self, name) is not None and (self.report or self.preset):
                raise UserError(f"--{name} is for trials, and --report and --preset run none")


def tune(argv: list[str]) -> int:
    """Run `gpt2lib tune STUDY.yaml [--out DIR] [--report] [--preset NAME.yaml]`."""
    options, _ = Tune.read(argv)
    from gpt2lib.tuning.config import load_study
    from gpt2lib.tuning.pool import open_folder
    from gpt2lib.tuning.pool import tune as run_study

    given = {name: getattr(options, name) for name in ("workers", "trials", "storage")}
    config = load_study(options.study).replace(**{n: v for n, v in given.items() if v is not None})
    folder = expand(options.out or f"runs/{config.name}")
    if not options.report and options.preset is None:
        try:
            study = run_study(config, folder)
        except KeyboardInterrupt:
            print("gpt2lib: stopped; the same command goes on", file=sys.stderr)
            return 130
        _print_best(study.get_trials(deepcopy=False))
        again = command_line("tune", options.study, "--out", folder, "--report")
        print(f"\nNext: {again}")
        return 0
    study = open_folder(config, folder, new=False)
    trials = study.get_trials(deepcopy=False)
    if options.report:
        from gpt2lib.tuning.report import write_report

        for path in write_report(config, study, folder):
            print(f"wrote {path}", file=sys.stderr)
        _print_best(trials)
    if options.preset is not None:
        from gpt2lib.tuning.results import UNIT, winner, write_preset

        best = winner(trials)
        write_preset(Path(options.preset), config, load_config(config.base), best)
        print(f"trial {best.number}, {best.value:.4f} {UNIT}, is in {options.preset}")
    return 0


def _print_best(trials: Sequence[FrozenTrial]) -> None:
    """Print the ten best trials."""
    from gpt2lib.tuning.report import noise_line, table

    print("\n".join(aligned(table(trials))))
    print(f"\n{noise_line(trials)}")
