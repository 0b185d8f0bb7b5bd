"""Answers to the exercises of notebook 08."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from wrong_answers import fails, right, wrong


@wrong("clip-by-norm", "each-tensor-by-itself", says="by its own norm")
def clip_every_tensor(grads, max_norm):
    clipped = []
    for g in grads:
        norm = g.norm()
        clipped.append(g * (max_norm / norm) if norm > max_norm else g)
    return clipped


@wrong("clip-by-norm", "clamps-each-number", says="cut off each number")
def clip_values(grads, max_norm):
    return [torch.clamp(g, min=-max_norm, max=max_norm) for g in grads]


@wrong("clip-by-norm", "lengthens-short-ones", says="comes out longer")
def always_this_long(grads, max_norm):
    norm = torch.cat([g.flatten() for g in grads]).norm()
    return [max_norm * g / norm for g in grads]


@wrong("clip-by-norm", "largest-number", says="largest number")
def by_maximum(grads, max_norm):
    clipped = []
    for g in grads:
        top = g.abs().max()
        clipped.append(g / top * max_norm if top > max_norm else g)
    return clipped


@wrong("clip-by-norm", "adds-the-norms", says="add their squares")
def sum_of_norms(grads, max_norm):
    norm = sum(g.norm() for g in grads)
    return [g * min(1.0, max_norm / norm) for g in grads]


@wrong("clip-by-norm", "forgets-the-root", says="sum of the squares")
def squared_norm(grads, max_norm):
    squares = sum((g * g).sum() for g in grads)
    return [g * torch.clamp(max_norm / squares, max=1.0) for g in grads]


@wrong("clip-by-norm", "zero-by-zero", says="NaN of every weight")
def no_epsilon(grads, max_norm):
    norm = torch.sqrt(sum((g**2).sum() for g in grads))
    return [g * torch.clamp(max_norm / norm * torch.sign(norm), max=1.0) for g in grads]


@wrong("clip-by-norm", None, says="expected")
def forgets_to_clip(grads, max_norm):
    return grads


@fails("clip-by-norm", says="in line 3 of")
def list_has_no_norm(grads, max_norm):
    norm = grads.norm()
    return [g / norm for g in grads]


@right("clip-by-norm")
def as_one_vector(grads, max_norm):
    norm = torch.cat([g.flatten() for g in grads]).norm().item()
    if norm <= max_norm:
        return grads
    return [g * (max_norm / norm) for g in grads]


@wrong("adamw-step", "no-bias-correction", says="1 - beta1**step")
def plain_averages(weight, grad, m, v, step, lr, beta1, beta2, eps, weight_decay):
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad.pow(2)
    weight = weight - lr * weight_decay * weight - lr * m / (v.sqrt() + eps)
    return weight, m, v


@wrong("adamw-step", "decay-in-the-gradient", says="that is L2")
def adam_with_l2(weight, grad, m, v, step, lr, beta1, beta2, eps, weight_decay):
    grad = grad + weight_decay * weight
    m = m + (1 - beta1) * (grad - m)
    v = v + (1 - beta2) * (grad * grad - v)
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    return weight - lr * m_hat / (torch.sqrt(v_hat) + eps), m, v


@wrong("adamw-step", "decay-without-the-rate", says="lr * weight_decay")
def decays_at_once(weight, grad, m, v, step, lr, beta1, beta2, eps, weight_decay):
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad * grad
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    return weight - weight_decay * weight - lr * m_hat / (v_hat.sqrt() + eps), m, v


@wrong("adamw-step", "no-decay", says="do not decay")
def adam(weight, grad, m, v, step, lr, beta1, beta2, eps, weight_decay):
    m = torch.lerp(grad, m, beta1)
    v = torch.lerp(grad**2, v, beta2)
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    return weight - lr * m_hat / (v_hat**0.5 + eps), m, v


@wrong("adamw-step", "eps-inside-the-root", says="under your root")
def safe_root(weight, grad, m, v, step, lr, beta1, beta2, eps, weight_decay):
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad.square()
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    weight = weight * (1 - lr * weight_decay)
    return weight - lr * m_hat * torch.rsqrt(v_hat + eps), m, v


@wrong("adamw-step", "uphill", says="must be subtracted")
def ascends(weight, grad, m, v, step, lr, beta1, beta2, eps, weight_decay):
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad**2
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    weight = (1 - lr * weight_decay) * weight
    weight += lr * m_hat / (v_hat.sqrt() + eps)
    return weight, m, v


@wrong("adamw-step", "betas-swapped", says="yours are swapped")
def the_other_beta(weight, grad, m, v, step, lr, beta1, beta2, eps, weight_decay):
    m = beta2 * m + (1 - beta2) * grad
    v = beta1 * v + (1 - beta1) * grad**2
    m_hat, v_hat = m / (1 - beta2**step), v / (1 - beta1**step)
    weight = weight - lr * weight_decay * weight
    return weight - lr * m_hat / (v_hat.sqrt() + eps), m, v


@wrong("adamw-step", "no-root", says="take its root")
def divides_by_the_square(weight, grad, m, v, step, lr, beta1, beta2, eps, weight_decay):
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad**2
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    return weight - lr * weight_decay * weight - lr * m_hat / (v_hat + eps), m, v


@wrong("adamw-step", None, says="expected")
def corrected_averages_are_kept(weight, grad, m, v, step, lr, beta1, beta2, eps, weight_decay):
    m = (beta1 * m + (1 - beta1) * grad) / (1 - beta1**step)
    v = (beta2 * v + (1 - beta2) * grad**2) / (1 - beta2**step)
    return weight * (1 - lr * weight_decay) - lr * m / (v.sqrt() + eps), m, v


@fails("adamw-step", says="ZeroDivisionError")
def counts_from_zero(weight, grad, m, v, step, lr, beta1, beta2, eps, weight_decay):
    step -= 1
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad**2
    share = 1 / (1 - beta1**step), 1 / (1 - beta2**step)
    return weight - lr * m * share[0] / ((v * share[1]).sqrt() + eps), m, v


@right("adamw-step")
def pytorch_itself(weight, grad, m, v, step, lr, beta1, beta2, eps, weight_decay):
    m = torch.lerp(m, grad, 1 - beta1)
    v = beta2 * v + (1 - beta2) * grad**2
    size = v.sqrt() / math.sqrt(1 - beta2**step) + eps
    shrunk = weight - lr * weight_decay * weight
    return shrunk - lr / (1 - beta1**step) * m / size, m, v


@wrong("weight-left", "forgets-the-rate", says="a small rate makes decay slow")
def same_share_each_time(rates, weight_decay):
    left = 1.0
    for _ in rates:
        left -= left * weight_decay
    return left


@wrong("weight-left", "adds-up", says="of the first weight")
def adds_the_shares(rates, weight_decay):
    return 1 - sum(rate * weight_decay for rate in rates)


@wrong("weight-left", "one-rate-for-all", says="highest rate")
def peak_rate(rates, weight_decay):
    return math.pow(1 - max(rates) * weight_decay, len(rates))


@wrong("weight-left", "exponential", says="in each update")
def half_life(rates, weight_decay):
    return math.e ** -(sum(rates) * weight_decay)


@wrong("weight-left", "what-is-gone", says="share that is left")
def share_gone(rates, weight_decay):
    left = 1.0
    for rate in rates:
        left *= 1 - rate * weight_decay
    return 1 - left


@wrong("weight-left", None, says="expected")
def last_update_only(rates, weight_decay):
    return 1 - rates[-1] * weight_decay


@right("weight-left")
def one_after_the_other(rates, weight_decay):
    weight = 1.0
    for rate in rates:
        weight -= rate * weight_decay * weight
    return weight


@wrong("decay-groups", "everything-decays", says="gain belongs near 1")
def all_of_them(model):
    return sorted(name for name, p in model.named_parameters() if p.requires_grad)


@wrong("decay-groups", "gains-decay", says="number of dimensions")
def no_bias(model):
    return sorted(n for n, p in model.named_parameters() if "bias" not in n and p.requires_grad)


@wrong("decay-groups", "embeddings-stay", says="in GPT-2 they do")
def linear_layers_only(model):
    names = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module.weight is not model.transformer.wte.weight:
            names.append(f"{name}.weight")
    return sorted(names)


@wrong("decay-groups", "tied-twice", says="both of its names")
def from_the_state_dict(model):
    trained = {p.data_ptr() for p in model.parameters() if p.requires_grad}
    state = model.state_dict()
    return sorted(n for n, t in state.items() if t.ndim > 1 and t.data_ptr() in trained)


@wrong("decay-groups", "frozen-too", says="requires_grad False")
def does_not_ask(model):
    return sorted(name for name, p in model.named_parameters() if p.ndim >= 2)


@wrong("decay-groups", "the-other-group", says="do not decay")
def vectors(model):
    return sorted(name for name, p in model.named_parameters() if len(p.shape) == 1)


@wrong("decay-groups", None, says="expected")
def blocks_only(model):
    return sorted(n for n, p in model.named_parameters() if ".h." in n and p.dim() == 2)


@right("decay-groups")
def by_shape(model):
    names = [n for n, p in model.named_parameters() if p.requires_grad and len(p.shape) > 1]
    names.sort()
    return names


def mean_loss(model, idx, targets):
    """The mean over the scored tokens, as `F.cross_entropy` gives it by default."""
    return F.cross_entropy(model(idx).flatten(0, 1), targets.flatten(), ignore_index=-1)


def grads_of(model):
    return [p.grad for p in model.parameters()]


@wrong("accumulated-gradient", "mean-of-means", says="counts the same")
def usual_recipe(model, pieces):
    model.zero_grad()
    for idx, targets in pieces:
        (mean_loss(model, idx, targets) / len(pieces)).backward()
    return grads_of(model)


@wrong("accumulated-gradient", "sum-of-means", says="number of pieces")
def no_division(model, pieces):
    model.zero_grad()
    for idx, targets in pieces:
        mean_loss(model, idx, targets).backward()
    return grads_of(model)


@wrong("accumulated-gradient", "divides-by-the-pieces", says="number of tokens")
def accumulation_steps(model, pieces):
    model.zero_grad()
    for idx, targets in pieces:
        loss, _ = model(idx, targets)
        (loss / len(pieces)).backward()
    return grads_of(model)


@wrong("accumulated-gradient", "never-divides", says="summed loss")
def sums(model, pieces):
    model.zero_grad()
    sum(model(idx, targets)[0] for idx, targets in pieces).backward()
    return grads_of(model)


@wrong("accumulated-gradient", "counts-ignored-targets", says="must not be counted")
def all_positions(model, pieces):
    model.zero_grad()
    n = sum(idx.numel() for idx, _ in pieces)
    for idx, targets in pieces:
        (model(idx, targets)[0] / n).backward()
    return grads_of(model)


@wrong("accumulated-gradient", "last-piece-only", says="not in it")
def zero_in_the_loop(model, pieces):
    n = sum((targets != -1).sum() for _, targets in pieces)
    for idx, targets in pieces:
        model.zero_grad()
        (model(idx, targets)[0] / n).backward()
    return grads_of(model)


@wrong("accumulated-gradient", "keeps-old-gradients", says="before the loop")
def never_empties(model, pieces):
    n = sum((targets != -1).sum() for _, targets in pieces)
    for idx, targets in pieces:
        (model(idx, targets)[0] / n).backward()
    return grads_of(model)


@wrong("accumulated-gradient", None, says="expected")
def first_piece(model, pieces):
    model.zero_grad()
    mean_loss(model, *pieces[0]).backward()
    return grads_of(model)


@right("accumulated-gradient")
def counts_first(model, pieces):
    model.zero_grad()
    n = sum((targets >= 0).sum().item() for _, targets in pieces)
    for idx, targets in pieces:
        loss, _ = model(idx, targets)
        (loss / n).backward()
    return grads_of(model)


@right("accumulated-gradient")
def divides_at_the_end(model, pieces):
    model.zero_grad()
    n = 0
    for idx, targets in pieces:
        loss, count = model(idx, targets)
        loss.backward()
        n += count
    return [p.grad / n for p in model.parameters()]


@wrong("accumulated-gradient", "one-backward-at-the-end", says="piece by piece")
def one_backward(model, pieces):
    model.zero_grad()
    total, n = 0.0, 0
    for idx, targets in pieces:
        loss, count = model(idx, targets)
        total, n = total + loss, n + count
    (total / n).backward()
    return grads_of(model)


@wrong("accumulated-gradient", "all-in-one-batch", says="at once where no piece")
def glued_together(model, pieces):
    model.zero_grad()
    loss, n = model(torch.cat([i for i, _ in pieces]), torch.cat([t for _, t in pieces]))
    (loss / n).backward()
    return grads_of(model)


@wrong("adamw-step", "decays-the-new-weight", says="shrink the old weight")
def decays_afterwards(weight, grad, m, v, step, lr, beta1, beta2, eps, weight_decay):
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad**2
    weight = weight - lr * (m / (1 - beta1**step)) / ((v / (1 - beta2**step)).sqrt() + eps)
    return weight - lr * weight_decay * weight, m, v


@wrong("adamw-step", "shares-swapped", says="the other way round")
def gradient_gets_beta(weight, grad, m, v, step, lr, beta1, beta2, eps, weight_decay):
    m = (1 - beta1) * m + beta1 * grad
    v = (1 - beta2) * v + beta2 * grad**2
    weight = weight - lr * weight_decay * weight
    return weight - lr * (m / (1 - beta1**step)) / ((v / (1 - beta2**step)).sqrt() + eps), m, v
