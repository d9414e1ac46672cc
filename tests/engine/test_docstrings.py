from __future__ import annotations

from engine.docstrings import read_docstring


class Documented:
    """Do this with that,
    and something else.

    ``child = t * A + (1 - t) * B``; see :class:`strategies.operator.Family` and
    :func:`~strategies.parents.family_of`. Then::

        q = round(w)

    - one item
    - another

    Source: somebody 2024, "A title",
    arXiv:1234.56789.

    A last paragraph.

    Args:
        low: Smallest weight,
            in ``[0, 1]``.
        high (float): Largest one: not a size.

    Raises:
        ValueError: ``low`` is above ``high``.
    """


class Brief:
    """Only this."""


class Silent(Brief):
    pass


def test_a_docstring_is_taken_apart() -> None:
    text = read_docstring(Documented)
    assert text.summary == "Do this with that, and something else."
    assert text.source == 'somebody 2024, "A title", arXiv:1234.56789.'
    assert text.arguments == {
        "low": "Smallest weight, in [0, 1].",
        "high": "Largest one: not a size.",
    }
    assert text.explanation == (
        "child = t * A + (1 - t) * B; see Family and\nfamily_of. Then:\n\n"
        "    q = round(w)\n\n- one item\n- another\n\nA last paragraph."
    )


def test_what_a_docstring_leaves_out_is_empty() -> None:
    text = read_docstring(Brief)
    assert (text.summary, text.explanation, text.source) == ("Only this.", "", "")
    assert text.arguments == {}


def test_a_docstring_is_not_inherited() -> None:
    assert read_docstring(Silent).summary == ""
