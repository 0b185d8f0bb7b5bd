"""`gpt2lib course`: the exercises of the notebooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gpt2lib.cli.terminal import Options, print_json
from gpt2lib.utils.errors import UserError


@dataclass(frozen=True)
class Course(Options):
    """The exercises of the notebooks.

    Attributes:
        action: exercises lists them; progress shows how many of each notebook are done.
        json: list as JSON.
        file: progress kept elsewhere than in my-notebooks/ (see GPT2LIB_PROGRESS too).
    """

    usage = "exercises [--json] | progress [--file PATH]"
    arguments = ("action",)

    action: Literal["exercises", "progress"]
    json: bool = False
    file: str | None = None

    def __post_init__(self) -> None:
        if self.json and self.action == "progress":
            raise UserError("--json is for the list of exercises; leave it out, or list those")
        if self.file is not None and self.action == "exercises":
            raise UserError("--file is for progress; leave it out, or ask for that")


def course(argv: list[str]) -> int:
    """Run `gpt2lib course exercises [--json]` or `gpt2lib course progress [--file PATH]`."""
    options, _ = Course.read(argv)
    from gpt2lib.course import listing, progress

    if options.action == "progress":
        progress(options.file)
        return 0
    exercises = listing()
    if options.json:
        print_json(exercises)
        return 0
    for exercise in exercises:
        print(f"{exercise['notebook']}  {exercise['id']:<28} {exercise['signature']}")
    return 0
