"""What can be seen of a wrong value beside the right one; the second look puts it together.

A look is a claim about two values that is checked before it is said. It never names a cause.

    numbers.py   value by value: sign, factor, offset, rounding, NaN
    order.py     where values stand: axes, reversed, shifted, another order, another shape
    rows.py      row by row: not normalised, a factor of its own; which positions alone are wrong
    rough.py     coarse facts: zeros, sums, too large or small, which lines are right
    parts.py     lists, texts, dicts: what is missing, what is too much, what is swapped
    kinds.py     the right value in a type that is not accepted
    inside.py    one case: its result as a whole, and the parts inside
    whole.py     all cases: a step, an argument that came back, one answer for all
"""
