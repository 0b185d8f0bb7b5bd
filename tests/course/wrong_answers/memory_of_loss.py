"""Answers to the exercise of notebook 09 about the loss in chunks."""

import torch
from torch.nn import functional as F

from wrong_answers import fails, right, wrong


@wrong("loss-in-chunks", "ignored-not-masked", says="the last token")
def no_mask(x, weight, targets, rows):
    loss, grad_x, grad_weight = x.new_zeros(()), torch.empty_like(x), torch.zeros_like(weight)
    for i in range(0, len(x), rows):
        p = F.softmax(x[i : i + rows] @ weight.t(), -1)
        for row, target in enumerate(targets[i : i + rows].tolist()):
            loss -= p[row, target].log()
            p[row, target] -= 1
        grad_x[i : i + rows] = p @ weight
        grad_weight += p.t() @ x[i : i + rows]
    return loss, grad_x, grad_weight


@wrong("loss-in-chunks", "masks-the-loss-only", says="by hand it must be said")
def ignore_index(x, weight, targets, rows):
    loss, grad_x, grad_weight = torch.tensor(0.0), [], torch.zeros_like(weight)
    for part, target in zip(x.split(rows), targets.split(rows), strict=True):
        logits = part @ weight.t()
        loss += F.cross_entropy(logits, target, ignore_index=-1, reduction="sum")
        p = logits.softmax(1)
        p[range(len(target)), target] -= 1
        grad_x.append(p @ weight)
        grad_weight += p.t() @ part
    return loss, torch.cat(grad_x), grad_weight


@wrong("loss-in-chunks", "mean-of-chunks", says="counts more than others")
def average_of_averages(x, weight, targets, rows):
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    pieces = list(zip(x.split(rows), targets.split(rows), strict=True))
    total = torch.tensor(0.0)
    for part, target in pieces:
        summed = F.cross_entropy(part @ weight.t(), target, ignore_index=-1, reduction="sum")
        mean = summed / (target != -1).sum().clamp(min=1) / len(pieces)
        mean.backward()
        total += mean.detach()
    return total, x.grad, weight.grad


@wrong("loss-in-chunks", "mean-instead-of-sum", says="return the sum")
def divided(x, weight, targets, rows):
    return tuple(t / (targets != -1).sum() for t in with_autograd(x, weight, targets, rows))


@wrong("loss-in-chunks", "last-chunk-only", says="+=")
def assigned(x, weight, targets, rows):
    loss, grad_x, _ = with_autograd(x, weight, targets, rows)
    start = (len(x) - 1) // rows * rows
    _, _, grad_weight = with_autograd(x[start:], weight, targets[start:], rows)
    return loss, grad_x, grad_weight


@wrong("loss-in-chunks", "drops-the-rest", says="3, 3 and 1")
def floor_division(x, weight, targets, rows):
    whole = len(x) // rows * rows
    loss, some, grad_weight = with_autograd(x[:whole], weight, targets[:whole], rows)
    grad_x = torch.zeros_like(x)
    grad_x[:whole] = some
    return loss, grad_x, grad_weight


@wrong("loss-in-chunks", "forgets-the-target", says="subtract 1")
def probabilities(x, weight, targets, rows):
    loss = F.cross_entropy(x @ weight.t(), targets, ignore_index=-1, reduction="sum")
    kept = (targets != -1).float()[:, None]
    p = F.softmax(x @ weight.t(), -1) * kept
    return loss, p @ weight, p.t() @ x


@wrong("loss-in-chunks", "holds-all-logits", says="a table of 9 rows by 11 tokens")
def all_at_once(x, weight, targets, rows):
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    loss = F.cross_entropy(x @ weight.t(), targets, ignore_index=-1, reduction="sum")
    loss.backward()
    return loss.detach(), x.grad, weight.grad


@wrong("loss-in-chunks", "overflows", says="exp(89)")
def by_exponentials(x, weight, targets, rows):
    loss, grad_x, grad_weight = torch.tensor(0.0), torch.zeros_like(x), torch.zeros_like(weight)
    for start in range(0, len(x), rows):
        some = slice(start, start + rows)
        kept, target = targets[some] != -1, targets[some].clamp(min=0)
        each = torch.arange(len(target))
        z = (x[some] @ weight.t()).exp()
        p = z / z.sum(1, keepdim=True)
        loss -= (p[each, target].log() * kept).sum()
        p[each, target] -= 1
        p *= kept[:, None]
        grad_x[some] = p @ weight
        grad_weight += p.t() @ x[some]
    return loss, grad_x, grad_weight


@fails("loss-in-chunks", says="one_hot")
def one_hot_of_ignored(x, weight, targets, rows):
    loss, grad_weight = torch.tensor(0.0), torch.zeros_like(weight)
    for part, target in zip(x.split(rows), targets.split(rows), strict=True):
        g = F.softmax(part @ weight.t(), -1) - F.one_hot(target, len(weight))
        grad_weight += g.t() @ part
    return loss, x, grad_weight


@right("loss-in-chunks")
def with_autograd(x, weight, targets, rows):
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    total = torch.tensor(0.0)
    for part, target in zip(x.split(rows), targets.split(rows), strict=True):
        loss = F.cross_entropy(part @ weight.t(), target, ignore_index=-1, reduction="sum")
        loss.backward()
        total += loss.detach()
    return total, x.grad, weight.grad


@right("loss-in-chunks")
def by_formula(x, weight, targets, rows):
    loss, grad_x, grad_weight = x.new_zeros(()), torch.empty_like(x), torch.zeros_like(weight)
    for start in range(0, len(x), rows):
        some = slice(start, start + rows)
        kept = targets[some] != -1
        target = targets[some].where(kept, 0)[:, None]
        log_p = F.log_softmax(x[some] @ weight.t(), -1)
        loss -= (log_p.gather(1, target)[:, 0] * kept).sum()
        g = log_p.exp().scatter_add(1, target, torch.full_like(target, -1.0, dtype=x.dtype))
        g *= kept[:, None]
        grad_x[some] = g @ weight
        grad_weight += g.t() @ x[some]
    return loss, grad_x, grad_weight


@wrong("loss-in-chunks", "holds-all-logits", says="earlier chunks stay alive")
def one_backward_at_the_end(x, weight, targets, rows):
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    total = torch.tensor(0.0)
    for part, target in zip(x.split(rows), targets.split(rows), strict=True):
        logits = part @ weight.t()
        total = total + F.cross_entropy(logits, target, ignore_index=-1, reduction="sum")
    total.backward()
    return total.detach(), x.grad, weight.grad


@wrong("loss-in-chunks", "gradient-of-the-logits", says="the chain rule goes on")
def stops_at_the_logits(x, weight, targets, rows):
    logits = (x @ weight.t()).requires_grad_()
    loss = F.cross_entropy(logits, targets, ignore_index=-1, reduction="sum")
    (grad,) = torch.autograd.grad(loss, logits)
    return loss, grad, grad.t() @ x
