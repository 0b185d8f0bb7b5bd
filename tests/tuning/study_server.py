"""A process that has imported everything, and forks the workers of a study for each line it gets.

As `kill_server` does for runs: importing takes seconds, a worker's whole study not many more, so
that real processes can be killed by the hundred. Started by `study_lab.Server`, never by hand.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from kill_server import serve

NEEDED_LATER = (
    "gpt2lib.tuning.worker",
    "gpt2lib.tuning.trial",
    "gpt2lib.training.loop",
    "alembic.migration",
    "sqlalchemy.dialects.sqlite",
    "optuna.importance",
    "kill_points",
    "torch._dynamo",
    "yaml",
)
"""What a worker imports while it goes on; imported here, it is there in every fork."""


def install(points: Any) -> None:
    """Make what a study does to its storage places to be killed at, beside those of a run."""
    import kill_points
    from optuna.study import Study
    from optuna.trial import Trial

    from gpt2lib.tuning import worker

    kill_points.install(points)
    points.around(Study, "ask", "asking for a trial")
    points.around(Study, "tell", "telling a value")
    points.around(Trial, "report", "reporting a part")
    points.around(Trial, "should_prune", "judging")
    points.around(Trial, "set_user_attr", "writing an attribute")
    points.around(Trial, "_suggest", "drawing")
    points.around(worker, "_locked", "locking a trial")
    points.around(worker, "_clear", "clearing a trial")


def child(job: dict[str, Any], number: int) -> int:
    """Be one worker in this forked process; return its exit code."""
    parent = os.getppid()
    from kill_points import Points

    from gpt2lib.tuning.worker import main

    points = Points(job["place"], job["n"]) if number == 0 else Points()
    install(points)
    code = main(job["folder"], parent)
    if job["counts"] and number == 0:
        Path(job["counts"]).write_text(json.dumps(points.counts), encoding="utf-8")
    return code


if __name__ == "__main__":
    serve(child, NEEDED_LATER)
    os._exit(0)
