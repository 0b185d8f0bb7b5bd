"""Notebook 09: A loss that never holds all logits."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import Exercise, Function, Misconception, case, lazy

torch: Any = lazy("torch")
watching: Any = lazy("gpt2lib.course.watching")
IGNORE = -1
LONGER = 40


def _in_chunks(linear_cross_entropy: Any) -> Function:
    def gradients(x: Any, weight: Any, targets: Any, rows: int) -> list[Any]:
        x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
        total, summed = torch.zeros(()), [torch.zeros_like(x), torch.zeros_like(weight)]
        for start in range(0, len(x), rows):
            some = slice(start, start + rows)
            loss, _ = linear_cross_entropy(x[some], weight, targets[some])
            total = total + loss.detach()
            for gradient, more in zip(summed, torch.autograd.grad(loss, (x, weight)), strict=True):
                gradient += more
        return [total, *summed]

    return gradients


def _by_formula(
    mask_loss: bool = True,
    mask_gradient: bool = True,
    onehot: bool = True,
    adds: bool = True,
    whole_chunks: bool = False,
    mean: str = "",
) -> Function:
    """Return the loss and its gradients from probabilities less one-hot rows, with mistakes."""

    def gradients(x: Any, weight: Any, targets: Any, rows: int) -> list[Any]:
        total, grad_x, grad_w = torch.zeros(()), torch.zeros_like(x), torch.zeros_like(weight)
        starts = range(0, len(x) - rows + 1 if whole_chunks else len(x), rows)
        for start in starts:
            some = slice(start, start + rows)
            target, kept = targets[some], targets[some] != IGNORE  # (R,) each
            log_p = torch.log_softmax(x[some] @ weight.T, dim=-1)  # (R, V)
            each = torch.arange(len(target))
            score, p = log_p[each, target], log_p.exp()
            p[each, target] -= int(onehot)
            share = 1 / (max(1, int(kept.sum())) * len(starts)) if mean == "chunks" else 1.0
            p *= share * (kept[:, None] if mask_gradient else 1)
            total -= share * (score * kept if mask_loss else score).sum()
            grad_x[some] = p @ weight
            grad_w = grad_w * int(adds) + p.T @ x[some]
        count = (targets != IGNORE).sum() if mean == "targets" else 1
        return [total / count, grad_x / count, grad_w / count]

    return gradients


def _problem(n: int, ignored: tuple[int, ...], seed: int, v: int = 11) -> tuple[Any, Any, Any]:
    numbers = torch.Generator().manual_seed(seed)
    x, weight = (torch.randn(size, 4, generator=numbers) for size in (n, v))
    targets = torch.randint(v - 1, (n,), generator=numbers)
    targets[list(ignored)] = IGNORE
    return x, weight, targets


def _of_the_logits(my_loss: Any) -> str | None:
    x, weight, targets = _problem(7, (1, 6), 0)
    _, grad_x, *_ = my_loss(x, weight, targets, 3)
    if tuple(grad_x.shape) != (len(x), len(weight)):
        return None
    return (
        f"in place of the gradient of x, {tuple(x.shape)}, there is one of the shape of the "
        f"logits, {tuple(grad_x.shape)}: the chain rule goes on, grad_x[some] = g @ weight"
    )


def _tables_of(my_loss: Any, n: int) -> Any:
    """Watch the rows of tables with a column a token."""
    x, weight, targets = _problem(n, (4,), 5)
    V, C = weight.shape
    with watching.Tables(lambda s: s[0] if s[1:] == (V,) and s[0] != C else 0) as tables:
        my_loss(x, weight, targets, 2)  # (C, V) is weight, transposed
    return tables


def _holds_more(my_loss: Any) -> str | None:
    """Watch what is made: a table with more rows than a chunk, or chunks that are all kept."""
    largest = _tables_of(my_loss, 9).largest
    if largest > 2:
        return (
            f"the numbers are right, but a table of {largest} rows by 11 tokens existed where "
            f"a chunk has 2: multiply, use and forget the logits of one chunk inside of the loop"
        )
    few, many = (_tables_of(my_loss, n).most for n in (10, LONGER))
    if many > few + 2:
        return (
            f"the numbers are right, but the logits of earlier chunks stay alive: {many} rows by "
            f"11 tokens at once for {LONGER} rows of x, {few} for 10. Go backward in each chunk, "
            "or make its gradients and forget it"
        )
    return None


def _overflows(my_loss: Any) -> str | None:
    """Give it logits whose exponentials are too large for float32."""
    x, weight, targets = _problem(6, (2,), 4)
    loss, *gradients = my_loss(100 * x, weight, targets, 2)
    if all(torch.as_tensor(found).isfinite().all() for found in (loss, *gradients)):
        return None
    return (
        "with logits of some hundred the result is not finite: exp(89) is more than float32 holds, "
        "and the logarithm of a probability that became 0 is -inf. Take log_softmax"
    )


EXERCISE = Exercise(
    id="loss-in-chunks",
    notebook="09",
    title="A loss that never holds all logits",
    signature="my_chunked_loss(x, weight, targets, rows)",
    reference="gpt2lib.model.kernels.chunked_loss:linear_cross_entropy",
    adapt=_in_chunks,
    cases=lambda: [
        case(*_problem(7, (1, 6), 0), 3),
        case(*_problem(8, (0, 2, 3), 1), 3),
        case(*_problem(5, (2, 3), 2), 2),
    ],
    rtol=1e-5,
    atol=1e-6,
    hints=[
        "for start in range(0, len(x), rows): some = slice(start, start + rows). A slice that "
        "reaches beyond the end is no error, so the last chunk may be shorter.",
        "The loss of a row is -log_p[target]. Its gradient with respect to the row's logits is p, "
        "less 1 at the target; a row with target -1 has loss 0 and gradient 0.",
        "With g of (R, V) the gradient of a chunk's logits: grad_x[some] = g @ weight, and "
        "grad_weight += g.T @ x[some].",
        "kept = targets[some] != -1; target = targets[some].where(kept, 0); g = log_p.exp(); "
        "g[torch.arange(len(target)), target] -= 1; g *= kept[:, None]",
    ],
    misconceptions=[
        Misconception(
            "ignored-not-masked",
            "rows with target -1 count: as an index, -1 is the last token of the vocabulary, and "
            "no error warns you. Their loss and their gradient are 0",
            wrong=_by_formula(mask_loss=False, mask_gradient=False),
        ),
        Misconception(
            "masks-the-loss-only",
            "the loss leaves out rows with target -1, but their gradient is not 0: with autograd "
            "that would have followed, by hand it must be said",
            wrong=_by_formula(mask_gradient=False),
        ),
        Misconception(
            "mean-of-chunks",
            "you average the means of chunks; a target in a chunk with few of them then counts "
            "more than others. Add up sums; who wants a mean divides once, at the end",
            wrong=_by_formula(mean="chunks"),
        ),
        Misconception(
            "mean-instead-of-sum",
            "this is the mean over the targets; return the sum, which can be added over "
            "micro-batches with different numbers of targets",
            wrong=_by_formula(mean="targets"),
        ),
        Misconception(
            "last-chunk-only",
            "the gradient of the weight is that of the last chunk; every row of x meets the same "
            "weight, so its gradient is the sum over all chunks: +=",
            wrong=_by_formula(adds=False),
        ),
        Misconception(
            "drops-the-rest",
            "the last chunk is shorter than the others, and you leave it out: 7 rows in threes are "
            "3, 3 and 1",
            wrong=_by_formula(whole_chunks=True),
        ),
        Misconception(
            "forgets-the-target",
            "p alone pushes every token down, the right one too; subtract 1 at the target",
            wrong=_by_formula(onehot=False),
        ),
        Misconception(
            "gradient-of-the-logits",
            test=_of_the_logits,
        ),
        Misconception("holds-all-logits", test=_holds_more, when_right=True),
        Misconception("overflows", test=_overflows, when_right=True),
    ],
)
