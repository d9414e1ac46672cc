"""Filters on a leaderboard: conditions in Python's notation, never run as code.

A filter is a condition such as ``generation >= 3 and fitness > 450`` or
``operator in ('unit', 'layer') and fitness_holdout is not None``. It is parsed and translated to
column operations. A missing value equals nothing and is neither greater nor smaller than anything,
so ``!=``, ``not in`` and ``not`` are true for it. A mutation equals its name and a fine-tuning that
of its preset: ``mutation == 'gaussian' and finetune != 'short'``.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from populations.errors import LeaderboardError
from populations.leaderboard_columns import suggestion
from populations.leaderboard_names import NAMED, short_names

LONGEST_FILTER = 2000

Value = Any  # a bool, float or str, a tuple of those, None, or a Series of floats, text or flags

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_ALLOWED = (
    "column names, numbers, quoted text, None, comparisons, in, is None, and, or, not, + - * / "
    "and parentheses"
)


def filter_rows(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return the rows for which a condition holds.

    Args:
        frame: A leaderboard.
        where: The condition. ``'text' in column`` finds a part of a text, such as a genome id in
            ``parents``; a column whose name is not an identifier goes between backticks.

    Raises:
        LeaderboardError: The condition is not one, names an unknown column, or compares a number
            with text.
    """
    if len(where) > LONGEST_FILTER:
        raise LeaderboardError(f"a filter has at most {LONGEST_FILTER} characters")
    evaluator = _Evaluator(frame)
    text = re.sub(r"`([^`]+)`", evaluator.quote, where.strip())
    try:
        tree = ast.parse(text, mode="eval")
        value = evaluator.value(tree.body)
    except SyntaxError as error:
        hint = "; equality is ==" if re.search(r"[^=<>!]=[^=]", where) else ""
        raise LeaderboardError(f"the filter {where!r} cannot be read: {error.msg}{hint}") from error
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        raise LeaderboardError(f"the filter {where!r} cannot be read: {error}") from error
    if not _is_flags(value):
        raise LeaderboardError(
            f"the filter {where!r} is {_kind(value)}, not a condition such as fitness > 450"
        )
    return frame[evaluator.flags(value)].reset_index(drop=True)


class _Evaluator:
    """Translates the syntax tree of a filter into operations on the columns of one table."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame
        self._quoted: dict[str, str] = {}

    def quote(self, match: re.Match[str]) -> str:
        """Stand in an identifier for a name between backticks."""
        stand_in = f"quoted_column_{len(self._quoted)}_"
        self._quoted[stand_in] = match[1]
        return stand_in

    def value(self, node: ast.expr) -> Value:
        """Evaluate one node."""
        match node:
            case ast.Constant(value=bool() | str() | None):
                return node.value
            case ast.Constant(value=int() | float() as number):
                return np.float64(number)
            case ast.Name():
                return self._column(self._quoted.get(node.id, node.id))
            case ast.Tuple() | ast.List():
                return tuple(self.value(item) for item in node.elts)
            case ast.Compare():
                return self._chain(node)
            case ast.BoolOp():
                parts = [self._condition(part) for part in node.values]
                combine = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
                return pd.Series(combine.reduce(parts), index=self.frame.index)
            case ast.UnaryOp(op=ast.Not()):
                return ~self._condition(node.operand)
            case ast.UnaryOp(op=ast.USub()):
                return -self._number(node.operand)
            case ast.UnaryOp(op=ast.UAdd()):
                return self._number(node.operand)
            case ast.BinOp() if type(node.op) in _ARITHMETIC:
                with np.errstate(all="ignore"):
                    return _ARITHMETIC[type(node.op)](
                        self._number(node.left), self._number(node.right)
                    )
            case ast.BinOp(op=ast.BitAnd() | ast.BitOr()):
                raise LeaderboardError("write 'and' and 'or' in a filter, not & and |")
        raise LeaderboardError(f"{ast.unparse(node)!r} is not allowed in a filter; use {_ALLOWED}")

    def flags(self, value: Value) -> pd.Series[bool]:
        """Spread a condition over all rows."""
        return pd.Series(value, index=self.frame.index, dtype=bool)

    def _named(self, node: ast.expr) -> Value:
        """Evaluate a node that is compared for equality, in which mappings are their names."""
        if isinstance(node, ast.Name) and (name := self._quoted.get(node.id, node.id)) in NAMED:
            return short_names(self.frame, name)
        return self.value(node)

    def _column(self, name: str) -> Value:
        if name not in self.frame.columns:
            raise LeaderboardError(
                f"no column named {name!r} (text goes between quotes). "
                f"{suggestion(name, self.frame.columns)}"
            )
        column = self.frame[name]
        if pd.api.types.is_bool_dtype(column.dtype):
            return column.fillna(False).astype(bool)
        if pd.api.types.is_numeric_dtype(column.dtype):
            return column.astype("Float64").astype("float64")
        return column.astype("string")

    def _condition(self, node: ast.expr) -> pd.Series[bool]:
        value = self.value(node)
        if not _is_flags(value):
            raise LeaderboardError(f"{ast.unparse(node)!r} is {_kind(value)}, not a condition")
        return self.flags(value)

    def _number(self, node: ast.expr) -> Value:
        value = self.value(node)
        if _kind(value) != "a number":
            raise LeaderboardError(f"{ast.unparse(node)!r} is {_kind(value)}, not a number")
        return value

    def _chain(self, node: ast.Compare) -> pd.Series[bool]:
        operands = [node.left, *node.comparators]
        holds = self.flags(True)
        for left, op, right in zip(operands, node.ops, operands[1:], strict=False):
            holds &= self._compare(left, op, right)
        return holds

    def _compare(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> pd.Series[bool]:
        a, b = self.value(left), self.value(right)
        if isinstance(op, ast.In | ast.NotIn):
            a = self._named(left)
            found = self._contains(a, b, right)
            return found if isinstance(op, ast.In) else ~found
        if b is None and isinstance(op, ast.Is | ast.IsNot | ast.Eq | ast.NotEq):
            missing = self.flags(pd.isna(a))
            return missing if isinstance(op, ast.Is | ast.Eq) else ~missing
        if isinstance(op, ast.Is | ast.IsNot):
            raise LeaderboardError("'is' compares with None only; use == and !=")
        kinds = (_kind(a), _kind(b))
        if kinds[0] != kinds[1] or kinds[0] not in ("a number", "text"):
            raise LeaderboardError(
                f"{ast.unparse(left)!r} is {kinds[0]} and cannot be compared with "
                f"{ast.unparse(right)!r}, which is {kinds[1]}"
            )
        if isinstance(op, ast.Eq | ast.NotEq):
            a, b = self._named(left), self._named(right)
        if isinstance(op, ast.NotEq):
            return ~self._plain(operator.eq(a, b))
        return self._plain(_COMPARE[type(op)](a, b))

    def _contains(self, item: Value, container: Value, node: ast.expr) -> pd.Series[bool]:
        if isinstance(container, tuple):
            holds = self.flags(False)
            for choice in container:
                if choice is None:
                    holds |= self.flags(pd.isna(item))
                elif _kind(choice) != _kind(item):
                    raise LeaderboardError(
                        f"{ast.unparse(node)!r} holds {_kind(choice)}, but is looked up for "
                        f"{_kind(item)}"
                    )
                else:
                    holds |= self._plain(item == choice)
            return holds
        is_column = isinstance(container, pd.Series) and _kind(container) == "text"
        if isinstance(item, str) and is_column:
            return self._plain(container.str.contains(item, regex=False))
        raise LeaderboardError(
            "'in' looks for a value in a list, as in operator in ('unit', 'layer'), or for a "
            "quoted text in a text column"
        )

    def _plain(self, value: Value) -> pd.Series[bool]:
        """Turn what a comparison gives into flags: a missing value makes it false."""
        if isinstance(value, pd.Series):
            return value.fillna(False).astype(bool)
        return self.flags(value)


def _is_flags(value: Value) -> bool:
    return _kind(value) == "a condition"


def _kind(value: Value) -> str:
    if isinstance(value, pd.Series):
        if value.dtype == bool:
            return "a condition"
        return "a number" if value.dtype == np.float64 else "text"
    if isinstance(value, bool):
        return "a condition"
    if isinstance(value, float):
        return "a number"
    if isinstance(value, tuple):
        return "a list"
    return "None" if value is None else "text"
