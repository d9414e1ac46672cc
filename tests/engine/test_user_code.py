from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.errors import ConceptionError
from engine.user_code import blamed, where_raised
from strategies.crossover.unit import UnitCrossover

FILE = """
import json
import numpy


def cross(how):
    return helper(how)


def helper(how):
    if how == "numpy":
        return numpy.flip(numpy.ones(3), axis=5)
    if how == "python":
        return json.loads("{")
    raise ValueError(how)
"""
LINES = {"numpy": 12, "python": 14, "itself": 15}


@pytest.mark.parametrize("how", LINES)
def test_the_last_line_of_the_authors_is_told_with_the_name_of_the_file(how: str) -> None:
    module: dict[str, Any] = {"__name__": "cultivar_plugin_my_ops"}
    exec(compile(FILE, "/home/somebody/my_ops.py", "exec"), module)
    with pytest.raises(ConceptionError) as caught, blamed("partial"):
        module["cross"](how)
    assert str(caught.value).startswith("partial: ")
    assert str(caught.value).endswith(f" (my_ops.py, line {LINES[how]})")


def test_no_line_is_told_where_all_code_is_built_in() -> None:
    parents: Any = None
    with pytest.raises(TypeError) as caught:
        UnitCrossover().cross(parents, np.random.default_rng(0))
    inside = caught.tb.tb_next  # without the line of this test
    assert inside is not None
    assert where_raised(caught.value.with_traceback(inside)) == ""
