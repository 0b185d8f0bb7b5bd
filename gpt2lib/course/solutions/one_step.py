"""Solutions of notebook 08."""

import math

import torch

from gpt2lib.training.muon import COEFFICIENTS


def my_clip(grads, max_norm):
    """Return the gradients, shortened by one common factor if they are too long.

    grads: a list of float tensors; the result is one, too. max_norm: a float.
    """
    norm = math.sqrt(sum(grad.pow(2).sum().item() for grad in grads))
    factor = min(1.0, max_norm / (norm + 1e-6))
    return [grad * factor for grad in grads]


def my_adamw_step(weight, grad, m, v, step, lr, beta1, beta2, eps, weight_decay):
    """Return the weight, m and v after one update, three new tensors.

    weight, grad, m, v: float tensors of one shape. step: an int, from 1. lr, beta1, beta2, eps,
    weight_decay: floats.
    """
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad**2
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    weight = weight * (1 - lr * weight_decay) - lr * m_hat / (v_hat.sqrt() + eps)
    return weight, m, v


def my_weight_left(rates, weight_decay):
    """Return the share of a weight that decay leaves, if nothing else moves it: a float.

    rates: a list of floats. weight_decay: a float.
    """
    return math.prod(1 - lr * weight_decay for lr in rates)


def my_decaying(model):
    """Return the sorted names of the parameters that decay: a list of str. model: a GPT."""
    named = model.named_parameters()
    return sorted(name for name, p in named if p.requires_grad and p.dim() >= 2)


def my_gradient(model, pieces):
    """Return the gradients of the mean loss over all scored tokens of all pieces.

    model: a GPT. pieces: a list of (idx, targets), int64 tensors (B, T). The result: a list of
    tensors, one for each of model.parameters().
    """
    n_tokens = sum(int((targets != -1).sum()) for _, targets in pieces)
    model.zero_grad()
    for idx, targets in pieces:
        loss, _ = model(idx, targets)
        (loss / n_tokens).backward()
    return [p.grad for p in model.parameters()]


def my_orthogonal(gradient):
    """Return the matrix with the gradient's directions, all of size 1.

    gradient: a float tensor (rows, columns); the result has its shape.
    """
    u, _, vt = torch.linalg.svd(gradient, full_matrices=False)
    return u @ vt


def my_newton_schulz(gradient):
    """Return the gradient with all singular values near 1, by products alone.

    gradient: a float tensor (rows, columns); the result has its shape.
    """
    a, b, c = COEFFICIENTS
    x = gradient / gradient.norm()
    for _ in range(5):
        square = x @ x.T
        x = a * x + b * square @ x + c * square @ square @ x
    return x
