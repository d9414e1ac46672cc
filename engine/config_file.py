"""Configurations as files: presets, YAML, overrides, and back to YAML."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engine.config import RunConfig
from engine.config_problems import find_problems, shown
from engine.errors import ConfigError
from engine.setting_list import Setting, describe_settings
from engine.strict_yaml import LONGEST, parse_yaml, write_yaml
from populations.regular_files import is_regular, read_regular
from strategies.registry import suggestion

__all__ = [
    "Setting",
    "describe_settings",
    "dump_config",
    "load_config",
    "preset_names",
]


MOST_BYTES = 4 * LONGEST
"""Bytes of the longest configuration, in UTF-8."""


def load_config(preset_or_path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> RunConfig:
    """Read a preset or a file, apply overrides, and check everything at once.

    Args:
        preset_or_path: Name of a preset, or path of a YAML file.
        overrides: ``evolution.generations=20`` and the like, the value as YAML; later ones win.

    Returns:
        The configuration, complete with all defaults.

    Raises:
        ConfigError: The preset or file is missing or not YAML, or settings are unknown or wrong;
            one line for each of them.
    """
    source = os.fspath(preset_or_path)
    values = parse_yaml(_read(source), source)
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: expected settings such as 'seed: 1', not {shown(values)}")
    problems = [problem for override in overrides for problem in _apply(values, override)]
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        problems += find_problems(values, error)
        raise _config_error(source, problems) from error
    problems += find_problems(values, None)
    if problems:
        raise _config_error(source, problems)
    return config


def dump_config(config: RunConfig) -> str:
    """Return a configuration as YAML with every setting; reading it back gives an equal one."""
    return write_yaml(config.model_dump())


def preset_names() -> tuple[str, ...]:
    """Return the names of the presets that come with cultivar."""
    files = (file.name for file in presets_folder().iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml")))


def _config_error(source: str, problems: Sequence[str]) -> ConfigError:
    """Return one error with a line for each problem."""
    if len(problems) == 1:
        return ConfigError(f"{source}: {problems[0]}")
    return ConfigError("\n  ".join([f"{source}: {len(problems)} errors", *problems]))


def _read(source: str) -> str:
    """Return the text of a preset or of a file."""
    if source in preset_names():
        return (presets_folder() / f"{source}.yaml").read_text(encoding="utf-8")
    path = Path(source)
    looks_like_path = path.suffix in (".yaml", ".yml") or len(path.parts) > 1
    if not looks_like_path and not is_regular(path):
        guess = suggestion(source, preset_names())
        raise ConfigError(
            f"no preset is named {source!r}.{guess} Available: {', '.join(preset_names())}. "
            "The path of a file ends in .yaml"
        )
    try:
        return read_regular(path, MOST_BYTES).decode("utf-8")
    except FileNotFoundError as error:
        raise ConfigError(
            f"{source}: expected a configuration file, but it is missing. "
            f"Presets are: {', '.join(preset_names())}"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{source}: expected UTF-8 text, but byte {error.start} is not"
        ) from error
    except OSError as error:
        raise ConfigError(f"{source}: cannot be read: {error.strerror}") from error


def presets_folder() -> Traversable:
    """Return where the presets lie, in an installation or in a checkout."""
    try:
        return resources.files("engine.presets")
    except ModuleNotFoundError:  # a checkout that is not installed has no such mapping
        return Path(__file__).parents[1] / "configs"


def _apply(values: dict[str, Any], override: str) -> Iterator[str]:
    """Set one value in place; yield what is wrong with the override."""
    name, equals, text = override.partition("=")
    name = name.strip()
    if not equals or not name:
        yield f"{override}: expected an override such as evolution.generations=20"
        return
    try:
        value = parse_yaml(text, override)
    except ConfigError as error:
        yield str(error)
        return
    section = values
    *path, last = name.split(".")
    for depth, part in enumerate(path):
        if section.get(part) is None:
            section[part] = {}
        section = section[part]
        if not isinstance(section, dict):
            yield f"{override}: {'.'.join(path[: depth + 1])} is {shown(section)}, not a section"
            return
    section[last] = value
