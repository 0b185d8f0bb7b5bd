"""What the notebooks use beside the library: set-up, sources, exercises, progress, plots.

    from gpt2lib.course import setup, show_source, check, hint, solution, progress
    from gpt2lib.course import budget, expect_error, kept_results, plots, predict, reveal, table

Importing this package imports neither torch nor matplotlib. Nothing here is used by training.
"""

from gpt2lib.course import plots
from gpt2lib.course.checking import check
from gpt2lib.course.exercise import CheckResult, Exercise, Misconception, case
from gpt2lib.course.guesses import predict, reveal
from gpt2lib.course.registry import hint, listing, solution
from gpt2lib.course.scores import progress
from gpt2lib.course.session import budget, expect_error, kept_results, setup
from gpt2lib.course.sources import show_source
from gpt2lib.course.tables import table

__all__ = [
    "CheckResult",
    "Exercise",
    "Misconception",
    "budget",
    "case",
    "check",
    "expect_error",
    "hint",
    "kept_results",
    "listing",
    "plots",
    "predict",
    "progress",
    "reveal",
    "setup",
    "show_source",
    "solution",
    "table",
]
