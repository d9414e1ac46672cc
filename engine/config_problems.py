"""What is wrong with the values of a configuration, one sentence for each problem."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from engine.config import RunConfig
from engine.config_evolution import MANY, ONE
from engine.setting_list import describe_settings, leaf_types, section_of
from engine.strict_yaml import write_yaml_inline

LONGEST_VALUE = 60
EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a whole number of usual size",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a section of settings",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "multiple_of": "a multiple of {multiple_of}",
    "literal_error": "{expected}",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
    "range_order": "a lower end and an upper end that is not below it",
}


def find_problems(values: Mapping[str, Any], error: ValidationError | None) -> list[str]:
    """Return everything that is wrong, one sentence each.

    Args:
        values: The configuration as it was read.
        error: What pydantic found, if anything.
    """
    details = [] if error is None else [item for item in error.errors() if not _is_echo(item)]
    return [*_booleans_for_numbers(RunConfig, values, ""), *map(_describe, details)]


def shown(value: Any) -> str:
    """Return a value as a message shows it: text in quotes, all else as YAML, never long."""
    text = repr(value) if isinstance(value, str) else write_yaml_inline(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def _describe(detail: ErrorDetails) -> str:
    name = _dotted(detail["loc"])
    kind = detail["type"]
    context = detail.get("ctx", {})
    if kind == "extra_forbidden":
        return _describe_unknown(detail["loc"])
    if kind == "missing":
        return f"{name} is missing"
    if kind == "value_error":  # from a validator of ours, which names the settings itself
        return str(context["error"])
    if kind not in EXPECTED:
        return f"{name}: {detail['msg']}, not {shown(detail['input'])}"
    return f"{name} must be {EXPECTED[kind].format(**context)}, not {shown(detail['input'])}"


def _describe_unknown(location: Sequence[int | str]) -> str:
    name, key = _dotted(location), str(location[-1])
    if "." in key:
        return f"{name} is not a setting: a file nests sections and has no dots in its keys"
    section = _dotted(location[:-1])
    # The settings of a preset are listed once, as those of what it is a preset of.
    parent = "finetune" if location[0] == "finetune_presets" else re.sub(r"\[\d+\]", "[]", section)
    known = [setting.name for setting in describe_settings()]
    siblings = [full.rpartition(".")[2] for full in known if full.rpartition(".")[0] == parent]
    near = difflib.get_close_matches(key, siblings, 1)
    similar = [f"{section}.{sibling}".removeprefix(".") for sibling in near]
    elsewhere = [full for full in known if full.rpartition(".")[2] == key]
    if matches := similar or elsewhere:
        return f"{name} is not a setting. Did you mean {matches[0]}?"
    return f"{name} is not a setting. There are: {', '.join(siblings)}"


def _dotted(location: Sequence[int | str]) -> str:
    """Return ``evolution.recipes[0].operator`` for the path of a value."""
    named = (part for part in location if part not in (ONE, MANY))
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in named]
    return "".join(parts).removeprefix(".")


def _is_echo(detail: ErrorDetails) -> bool:
    """Tell whether a list only counts as too short because its entries are wrong themselves."""
    return detail["type"] == "too_short" and len(detail["input"]) >= detail["ctx"]["min_length"]


def _booleans_for_numbers(model: type[BaseModel], values: Any, prefix: str) -> Iterator[str]:
    """Yield the settings where pydantic would take ``true`` for 1."""
    if not isinstance(values, dict):
        return
    for name, field in model.model_fields.items():
        value = values.get(name)
        entries = value if isinstance(value, list) else [value]
        if section := section_of(field.annotation):
            named = {name: value}
            if isinstance(value, list):
                named = {f"{name}[{i}]": entry for i, entry in enumerate(value)}
            elif isinstance(value, dict) and get_origin(field.annotation) is dict:
                named = {f"{name}.{key}": entry for key, entry in value.items()}
            for path, entry in named.items():
                yield from _booleans_for_numbers(section, entry, f"{prefix}{path}.")
            continue
        types = leaf_types(field.annotation)
        takes_number = bool not in types and (int in types or float in types)
        if takes_number and any(isinstance(entry, bool) for entry in entries):
            yield f"{prefix}{name} must be a number, not {shown(value)}"
