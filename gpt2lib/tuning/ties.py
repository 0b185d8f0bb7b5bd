"""Ties: arithmetic over other fields, such as `model.n_embd // 32`."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from typing import Any

from gpt2lib.utils.errors import UserError

OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: math.pow,  # of floats: a power of integers could fill the memory
    ast.USub: operator.neg,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{f.__name__: f for f in (min, max, round, math.sqrt, math.log2, math.floor, math.ceil)}
}


def evaluate(tie: str, look_up: Callable[[str], Any]) -> float:
    """Return what a tie comes to.

    Args:
        tie: numbers, fields, + - * / // % **, brackets, and the functions above.
        look_up: gives the value of a field by its dotted name.

    Raises:
        UserError: if the tie is anything but arithmetic, or comes to no finite number.
    """

    def value(node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=int() | float() as number):
                return number
            case ast.Name() | ast.Attribute():
                return look_up(ast.unparse(node))
            case ast.UnaryOp() if type(node.op) in OPERATORS:
                return OPERATORS[type(node.op)](value(node.operand))
            case ast.BinOp() if type(node.op) in OPERATORS:
                return OPERATORS[type(node.op)](value(node.left), value(node.right))
            case ast.Call(func=ast.Name(id=name), keywords=[]) if name in FUNCTIONS:
                return FUNCTIONS[name](*map(value, node.args))
        known = f"numbers, fields, + - * / // % ** and {', '.join(FUNCTIONS)}"
        raise UserError(f"tie {tie!r} holds {ast.unparse(node)!r}; it may hold {known}")

    try:
        result: float = value(ast.parse(tie.strip(), mode="eval").body)
        if math.isfinite(result):
            return result
        why = f"it comes to {result}"
    except UserError:
        raise
    except SyntaxError as error:
        raise UserError(f"tie {tie!r} is not arithmetic") from error
    except (ArithmeticError, ValueError, TypeError) as error:  # a field may be no number
        why = str(error)
    raise UserError(f"tie {tie!r} cannot be computed: {why}")
