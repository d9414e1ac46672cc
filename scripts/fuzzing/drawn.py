"""Damaged files as strategies of hypothesis, which shrinks one that does harm to a small one."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from fuzzing.mutations import ODD, places
from fuzzing.readers import Reader

LONGEST_PIECE = 64
"""Bytes that one edit takes away or puts in, unless it goes on as another file."""
TEXT = st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.sampled_from(ODD),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(TEXT, inside, max_size=4),
    max_leaves=6,
)


def damaged_files(reader: Reader) -> st.SearchStrategy[bytes]:
    """Return files for a reader: arbitrary ones, edited good ones, and such with other values."""
    kinds = [
        st.binary(max_size=200),
        st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
        edited(reader),
    ]
    change = OTHER_VALUES.get(Path(reader.file).suffix)
    if change is not None:
        kinds.append(change(reader))
    if reader.knowing:
        kinds.append(changed_knowingly(reader))
    return st.one_of(kinds)


@st.composite
def edited(draw: st.DrawFn, reader: Reader) -> bytes:
    """Cut, insert or replace a piece of a good file, or let it go on as another one."""
    content = _good(draw, reader)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        edit = draw(st.sampled_from(("cut", "insert", "replace", "splice")))
        if edit == "cut":
            content = content[:start] + content[start + draw(st.integers(1, LONGEST_PIECE)) :]
        elif edit == "splice":
            other = _good(draw, reader)
            content = content[:start] + other[draw(st.integers(0, len(other))) :]
        else:
            piece = draw(st.binary(min_size=1, max_size=LONGEST_PIECE))
            lost = len(piece) if edit == "replace" else 0
            content = content[:start] + piece + content[start + lost :]
    return content


@st.composite
def changed_knowingly(draw: st.DrawFn, reader: Reader) -> bytes:
    """Let a mutation that knows the format change a good file, with draws of hypothesis."""
    mutation = draw(st.sampled_from(reader.knowing))
    return mutation(draw(st.randoms(use_true_random=False)), _good(draw, reader))


@st.composite
def other_json(draw: st.DrawFn, reader: Reader) -> bytes:
    """Replace a value of a JSON file."""
    return _with_other_value(draw, json.loads(_good(draw, reader)))


@st.composite
def other_yaml(draw: st.DrawFn, reader: Reader) -> bytes:
    """Replace a value of a YAML file; JSON is YAML, too."""
    return _with_other_value(draw, yaml.safe_load(_good(draw, reader)))


@st.composite
def other_cells(draw: st.DrawFn, reader: Reader) -> bytes:
    """Replace a cell of a table."""
    rows = list(csv.reader(io.StringIO(_good(draw, reader).decode(), newline="")))
    row = draw(st.sampled_from(rows))
    value = draw(TEXT | st.integers().map(str) | st.floats().map(str) | JSON.map(json.dumps))
    row[draw(st.integers(0, len(row) - 1))] = value
    content = io.StringIO()
    csv.writer(content).writerows(rows)
    return content.getvalue().encode("utf-8", "surrogatepass")


OTHER_VALUES: dict[str, Callable[[Reader], st.SearchStrategy[bytes]]] = {
    ".json": other_json,
    ".yaml": other_yaml,
    ".csv": other_cells,
}


def _good(draw: st.DrawFn, reader: Reader) -> bytes:
    return draw(st.sampled_from(reader.samples()))


def _with_other_value(draw: st.DrawFn, values: Any) -> bytes:
    container, key = draw(st.sampled_from(list(places(values))))
    container[key] = draw(JSON)
    return json.dumps(values).encode()
