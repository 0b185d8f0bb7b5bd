"""`gpt2lib course`: the exercises of the notebooks."""

from __future__ import annotations

from gpt2lib.cli.options import Parser
from gpt2lib.cli.output import print_json
from gpt2lib.utils.errors import UserError, nearest

ACTIONS = ("exercises", "progress")


def course(argv: list[str]) -> int:
    """Run `gpt2lib course exercises [--json]` or `gpt2lib course progress`."""
    parser = Parser("course", "exercises [--json] | progress", "The exercises of the notebooks.")
    parser.add_argument(
        "action", help="exercises lists them; progress shows how many of each notebook are done"
    )
    parser.add_argument("--json", action="store_true", help="list as JSON")
    values = parser.read(argv)
    action = values["action"]
    if action not in ACTIONS:
        hint = nearest(action, ACTIONS)
        raise UserError(f"course can show {' or '.join(ACTIONS)}, not {action!r}{hint}")
    if action == "progress":
        from gpt2lib.course import progress

        progress()
        return 0
    from gpt2lib.course import listing

    exercises = listing()
    if values["json"]:
        print_json(exercises)
        return 0
    for exercise in exercises:
        print(f"{exercise['notebook']}  {exercise['id']:<28} {exercise['signature']}")
    return 0
