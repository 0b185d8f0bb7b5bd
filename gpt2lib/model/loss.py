"""The next-token loss, from the logits.

Shapes: B batch, T time, V vocabulary.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from gpt2lib.config import IGNORE
from gpt2lib.utils.errors import UserError


def check_ids(idx: Tensor, targets: Tensor | None, vocab_size: int) -> None:
    """Refuse ids that the model has no row for, where looking costs next to nothing.

    That is on a CPU; a GPU would have to be waited for, and stops by itself.

    Raises:
        UserError: naming the first id that is wrong.
    """
    for what, ids in {"idx": idx, "targets": targets}.items():
        if ids is None or ids.device.type != "cpu" or type(ids) is not Tensor or not ids.numel():
            continue  # a subclass, as of FakeTensorMode, has no values to look at
        least, most = (int(end) for end in ids.aminmax())
        if least < (0 if what == "idx" else min(0, IGNORE)) or most >= vocab_size:
            wrong = most if most >= vocab_size else least
            hint = f"; what is not to be scored is {IGNORE}" if what == "targets" else ""
            raise UserError(
                f"{what} hold {wrong}, but the model has {vocab_size} tokens, 0 to "
                f"{vocab_size - 1}{hint}"
            )


def next_token_loss(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the cross-entropy over the targets, and count them.

    A sum and a count, not a mean: means of batches with different counts cannot be averaged,
    but sums can be added over micro-batches and processes and divided once. With every target
    ignored the sum is 0, where a mean would be NaN.

    Args:
        logits: (B, T, V), unnormalised log-probabilities.
        targets: (B, T), token ids, or `IGNORE`.

    Returns:
        The summed loss in nats, float32, and the number of targets scored, both scalars.

    Reference: Radford et al. 2018, equation 1 (the negative of its sum).
    """
    loss = F.cross_entropy(
        logits.float().flatten(0, -2),  # (B·T, V): in float32 whatever autocast chose
        targets.flatten(),  # (B·T,)
        ignore_index=IGNORE,
        reduction="sum",
    )
    return loss, (targets != IGNORE).sum()
