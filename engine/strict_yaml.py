"""YAML without surprises: plain values only, each key once, numbers as in YAML 1.2.

Where PyYAML's safe loader differs: here ``1e-3`` is a number, ``no``, ``12:30`` and dates are text,
keys are text and never repeated, and tags, anchors and aliases are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from engine.errors import ConfigError

LONGEST = 1_000_000
"""Characters of a file: PyYAML takes a minute for ten times as many."""
# tag, pattern, and the characters that such a value can start with
SCALARS = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9_]*)", list("-+0123456789")),
    (
        "float",
        r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
)


class _Loader(yaml.SafeLoader):
    """Reads plain values only."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # PyYAML fills it per class

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # its stub has no types
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            problem = "anchors and aliases are not allowed"
            raise ComposerError(None, None, problem, event.start_mark)
        tag = getattr(event, "tag", None)
        if tag is not None:
            problem = f"tags are not allowed, but {tag:.80} was found"
            raise ComposerError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[str, int] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                problem = f"a key must be text, not {key!r:.80}"
                raise ConstructorError(None, None, problem, key_node.start_mark)
            if key in lines:
                problem = f"the key {key!r:.80} is given twice, first in line {lines[key]}"
                raise ConstructorError(None, None, problem, key_node.start_mark)
            lines[key] = line
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Writes what the loader reads back, short lists on one line."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # PyYAML fills it per class

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_sequence(
        self, tag: str, sequence: Any, flow_style: bool | None = None
    ) -> yaml.SequenceNode:
        flat = not any(isinstance(item, list | dict) for item in sequence)
        return super().represent_sequence(tag, sequence, flow_style or flat or None)


for _tag, _pattern, _first in SCALARS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first
        )


def parse_yaml(text: str, source: str) -> Any:
    """Return the plain values of a YAML text; an empty text is None.

    Args:
        text: YAML.
        source: Where it comes from, for the message.

    Raises:
        ConfigError: It is not valid YAML, repeats a key, or holds more than plain values.
    """
    if len(text) > LONGEST:
        raise ConfigError(
            f"{source}: expected settings of at most {LONGEST:,} characters, not {len(text):,}"
        )
    try:
        values = yaml.load(text, _Loader)
        # An escape can name half a character, which cannot be written again.
        json.dumps(values, ensure_ascii=False).encode()
        return values
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f", line {mark.line + 1}"
        raise ConfigError(f"{source}{line}: {error.problem or error.context}") from error
    except yaml.reader.ReaderError as error:
        line = f", line {text.count(chr(10), 0, error.position) + 1}"
        raise ConfigError(f"{source}{line}: expected text, not a control character") from error
    except RecursionError as error:
        raise ConfigError(f"{source}: expected a few levels of settings, not hundreds") from error
    except ValueError as error:  # a number of more than 4300 digits
        raise ConfigError(f"{source}: {error}") from error


def write_yaml(values: Any) -> str:
    """Return YAML that :func:`parse_yaml` reads back as equal values."""
    text: str = yaml.dump(values, Dumper=_Dumper, sort_keys=False)
    return text


def write_yaml_inline(values: Any) -> str:
    """Return a value as it would stand behind a key, on one line."""
    text: str = yaml.dump(values, Dumper=_Dumper, default_flow_style=True, width=2**31)
    return text.removesuffix("\n").removesuffix("\n...")
