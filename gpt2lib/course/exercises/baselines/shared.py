"""What several exercises of notebook 03 use."""

from typing import Any

from gpt2lib.course.exercise import Seen

BITS = "this is in bits; the course counts in nats, so take the natural logarithm (.log())"


def rows(counts: Any) -> Any:
    return counts / counts.sum(dim=1, keepdim=True)


def sum_not_mean(seen: Seen) -> str:
    return (
        f"{seen.got:.4g} is the loss of the whole text: a longer text would look worse. Divide by "
        "the number of scored tokens"
    )
