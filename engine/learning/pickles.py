"""Pickles of others, looked at before they are read: small ones may take hours or all memory.

Nothing is unpickled here; the opcodes are only walked through, with how much each object holds.
"""

from __future__ import annotations

import pickletools
import warnings
from typing import IO

LONGEST_NAME = 500
"""Characters of a module and class; torch searches what it says of them in quadratic time."""
MOST_REPEATED = 100
"""Times that a pickle may hold its own size, where objects are in it more than once."""
SMALL = 10**6

GROWING = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")
MARK = pickletools.markobject


def check_pickle(content: IO[bytes], n_bytes: int) -> None:
    """Read one pickle up to its end and refuse it if it is a trap.

    Tuples that hold another one twice, some thirty in one another, are a few bytes, but to hash or
    to print them takes years. Numbers of objects are an index into a table, which must have room.

    Args:
        content: Where the pickle begins.
        n_bytes: Size of the file.

    Raises:
        ValueError: It is a trap or damaged.
    """
    # What lies on the stack, each with the number of objects in it; None is a mark.
    stack: list[list[int] | None] = []
    memo: dict[int, list[int]] = {}
    most = max(SMALL, MOST_REPEATED * n_bytes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pickletools complains of odd escapes in damaged files
        for opcode, given, _ in pickletools.genops(content):
            name, argument = opcode.name, str(given)
            if name in ("GLOBAL", "INST") and len(argument) > LONGEST_NAME:
                raise ValueError(f"it asks for a name of {len(argument):,} characters")
            if name == "MARK":
                stack.append(None)
            elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
                number = len(memo) if given is None else int(argument)
                if number > n_bytes:
                    raise ValueError(f"an object has the number {number}")
                memo[number] = _pop(stack, keep=True)
            elif name in ("GET", "BINGET", "LONG_BINGET"):
                if int(argument) not in memo:
                    raise ValueError(f"there is no object with the number {argument}")
                stack.append(memo[int(argument)])
            elif name == "DUP":
                stack.append(_pop(stack, keep=True))
            elif name == "POP":
                if not stack:
                    raise ValueError("there is nothing to take away")
                stack.pop()
            else:
                before = opcode.stack_before
                taken = _pop_to_mark(stack) if MARK in before else []
                n_below = before.index(MARK) if MARK in before else len(before)
                below = [_pop(stack) for _ in range(n_below)][::-1]
                grown = sum(held[0] for held in (*taken, *below))
                if grown > most:
                    raise ValueError("its objects hold one another too often")
                if name in GROWING and below:
                    below[0][0] = grown
                    stack.append(below[0])
                else:
                    stack += [[1 + grown] for _ in opcode.stack_after]


def _pop(stack: list[list[int] | None], keep: bool = False) -> list[int]:
    """Take the topmost object."""
    top = stack[-1] if stack else None
    if top is None:
        raise ValueError("an object is missing")
    if not keep:
        stack.pop()
    return top


def _pop_to_mark(stack: list[list[int] | None]) -> list[list[int]]:
    """Take all objects above the topmost mark, and the mark."""
    taken: list[list[int]] = []
    while stack:
        top = stack.pop()
        if top is None:
            return taken
        taken.append(top)
    raise ValueError("a mark is missing")
