"""The list of all settings, read from the configuration models themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel

from engine.config import RunConfig, Section
from engine.strict_yaml import write_yaml_inline

REQUIRED = "required"


class Setting(NamedTuple):
    """One row of the list of settings.

    Attributes:
        name: Dotted name; ``[]`` stands for the number of a list entry.
        default: Its default as YAML, ``required``, or empty for a section.
        meaning: What it means, one or two sentences.
    """

    name: str
    default: str
    meaning: str


def describe_settings() -> tuple[Setting, ...]:
    """Return every setting with its default and its meaning, in the order of the sections."""
    return tuple(_walk(RunConfig, ""))


def section_of(annotation: Any) -> type[Section] | None:
    """Return the section among the types of a field, or None for a plain value."""
    for leaf in leaf_types(annotation):
        if isinstance(leaf, type) and issubclass(leaf, Section):
            return leaf
    return None


def leaf_types(annotation: Any) -> tuple[Any, ...]:
    """Return the types that an annotation is made of, ``(int, None)`` for ``int | None``."""
    arguments = get_args(annotation)
    if not arguments:
        return (annotation,)
    return tuple(leaf for argument in arguments for leaf in leaf_types(argument))


def _walk(model: type[BaseModel], prefix: str) -> Iterator[Setting]:
    for name, field in model.model_fields.items():
        section = section_of(field.annotation)
        if field.is_required():
            default = REQUIRED
        elif section is field.annotation:
            default = ""
        else:
            default = _default(field.get_default(call_default_factory=True))
        meaning = " ".join((field.description or "").split())
        yield Setting(prefix + name, default, meaning + _choices(field.annotation, meaning))
        if section is not None and get_origin(field.annotation) is not dict:
            entry = "[]" if get_origin(field.annotation) is tuple else ""
            yield from _walk(section, f"{prefix}{name}{entry}.")


def _choices(annotation: Any, meaning: str) -> str:
    """Return a sentence with the texts that a setting can be, unless its meaning names them all."""
    choices = [f"``{leaf}``" for leaf in leaf_types(annotation) if isinstance(leaf, str)]
    choices = list(dict.fromkeys(choices))
    if all(choice in meaning for choice in choices):
        return ""
    return f" Choices: {', '.join(choices)}."


def _default(value: Any) -> str:
    """Return a default as YAML on one line, of sections only what is not a default itself."""
    if isinstance(value, tuple):
        return f"[{', '.join(_default(item) for item in value)}]"
    if isinstance(value, Section):
        value = value.model_dump(mode="json", exclude_defaults=True)
    return write_yaml_inline(value)
