"""The report of a study: a page, a table, and figures that each say what a seed changes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2lib.tuning import figures
from gpt2lib.tuning.config import StudyConfig
from gpt2lib.tuning.results import CONFIRMS, UNIT, best_trials, importances, noise, winner
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import write_text, writing

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

MOST_MAPS = 3
"""Parameters, those that matter most, of which every pair has a heat map."""


def noise_line(trials: Sequence[FrozenTrial]) -> str:
    """Say how much a seed changes, in a line that stands on every figure."""
    found = noise(trials)
    if found is None:
        return "noise of a seed: not measured, every trial has one seed"
    return (
        f"noise of a seed: ±{found.deviation:.4f} {UNIT} (standard deviation; "
        f"{found.runs} runs of {found.trials} trial{'s' * (found.trials != 1)})"
    )


def table(trials: Sequence[FrozenTrial], most: int = 10) -> list[list[str]]:
    """Return the best trials under a header, those with new seeds before the others."""
    best = [*best_trials(trials, confirmed=True), *best_trials(trials)][:most]
    names = list(dict.fromkeys(name for trial in best for name in trial.params))
    rows = [["trial", UNIT, "±", "seeds", "steps", "seconds", *names]]
    for trial in best:
        attributes = trial.user_attrs
        repeats = f" (again {attributes[CONFIRMS]})" if CONFIRMS in attributes else ""
        spread = f"{attributes['spread']:.4f}" if "spread" in attributes else "–"
        measured = [f"{trial.value:.4f}", spread, len(attributes["values"]), attributes["steps"]]
        drawn = [trial.params.get(name, "–") for name in names]
        seconds = f"{attributes['train_seconds']:.0f}"
        rows.append([f"{trial.number}{repeats}", *map(str, measured), seconds])
        rows[-1] += [f"{v:.3g}" if isinstance(v, float) else str(v) for v in drawn]
    return rows


def write_report(config: StudyConfig, study: Study, folder: Path) -> list[Path]:
    """Write `trials.csv`, the figures and `report.md` into the study's folder; return the files.

    Raises:
        UserError: if there are too few trials to say anything, or the disk refuses.
    """
    trials = study.get_trials(deepcopy=False)
    winner(trials)  # refuses a study without any
    notes, best = [noise_line(trials)], best_trials(trials)
    with writing(folder / "trials.csv"):
        attributes = ("number", "state", "value", "params", "user_attrs")
        study.trials_dataframe(attributes).to_csv(folder / "trials.csv", index=False)
    names = [n for n in best[0].params if len({t.params[n] for t in best}) > 1] if best else []
    drawn: dict[Path, str] = {}
    try:
        found = importances(best)
    except UserError as error:
        notes.append(str(error))
    else:
        order = [importance.name for importance in found]
        names.sort(key=order.index)
        path = figures.draw_importances(folder / "importance.png", found, notes[0], len(best))
        drawn[path] = f"Importance of {len(found)} parameters; the most important is {order[0]}."
    if len(names) > 1:
        path = folder / "parallel.png"
        figures.draw_parallel(path, names, best, notes[0])
        drawn[path] = f"Parallel coordinates of {len(best)} trials, the best ones the darkest."
    axes = [figures.Axis(name, best) for name in names[:MOST_MAPS]]
    for across, up in combinations(axes if len(best) > 3 else [], 2):
        path = folder / f"heat-{across.name}-{up.name}.png"
        figures.draw_heat(path, across, up, best, noise(trials), notes[0])
        drawn[path] = f"{UNIT} over {across.name} and {up.name}, with lines of equal loss."
    write_text(folder / "report.md", _page(config, trials, drawn, notes))
    return [folder / "trials.csv", *drawn, folder / "report.md"]


def _page(
    config: StudyConfig, trials: Sequence[FrozenTrial], drawn: dict[Path, str], notes: list[str]
) -> str:
    """Return the report as Markdown."""
    states = [trial.state.name.lower() for trial in trials]
    kinds = ", ".join(f"{states.count(kind)} {kind}" for kind in sorted(set(states)))
    diverged = sum("diverged" in trial.user_attrs for trial in trials)
    header, *rows = table(trials)
    lines = [f"# {config.name}", "", f"{len(trials)} trials: {kinds}; {diverged} diverged."]
    lines += [f"{note[0].upper()}{note[1:]}." for note in notes]
    lines += ["", f"| {' | '.join(header)} |", "|" + " --- |" * len(header)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    for path, alt in drawn.items():
        lines += ["", f"![{alt}]({path.name})"]
    return "\n".join(lines) + "\n"
