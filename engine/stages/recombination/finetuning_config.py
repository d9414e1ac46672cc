"""How a child is fine-tuned: the settings, and the YAML file that may hold them."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from engine.errors import ConfigError, StageError
from engine.stages.imitation.config import ImitationConfig
from populations.regular_files import read_regular

QuantizationApplied = Literal["none", "ptq_dynamic", "ptq_static", "qat_float"]
SECTION = "crossover_child_finetune"


@dataclass(frozen=True)
class FineTuningConfig(ImitationConfig):
    """How one child learns to imitate its references; defaults of AgentFarm's fine-tuning.

    Attributes:
        epochs: Passes over the training states, at least 1.
        quantization_applied: What the child is trained for. ``none``: to be float32. All others
            train it through the int8 codec, which also measures it while it trains.
            ``qat_float``: the outcome stays float32, ready to be quantized. ``ptq_dynamic`` and
            ``ptq_static``: the int8 child is exported too.

    Raises:
        StageError: A setting is out of its range.
    """

    epochs: int = 5
    quantization_applied: QuantizationApplied = "none"

    def __post_init__(self) -> None:
        """Check every range."""
        super().__post_init__()
        allowed = get_args(QuantizationApplied)
        if self.quantization_applied not in allowed:
            raise StageError(
                f"quantization_applied must be one of {', '.join(allowed)}, "
                f"not {self.quantization_applied!r}"
            )

    @property
    def is_int8_in_loop(self) -> bool:
        """Whether the child is trained, and measured while it trains, through the int8 codec."""
        return self.quantization_applied != "none"

    @property
    def exports_int8(self) -> bool:
        """Whether the int8 child is written beside the float one."""
        return self.quantization_applied.startswith("ptq_")

    def record(self, epochs_run: int) -> dict[str, Any]:
        """Return what a sidecar keeps: every setting, and the temperature of the last epoch."""
        last = self.temperature * self.temp_decay ** max(epochs_run - 1, 0)
        return {**asdict(self), "seed": self.resolved_seed, "final_temperature": last}


_NUMBER = ((int, float), "a number")
_WHOLE = ((int,), "a whole number")
_TEXT = ((str,), "text")
KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "learning_rate": _NUMBER,
    "epochs": _WHOLE,
    "batch_size": _WHOLE,
    "max_grad_norm": ((int, float, type(None)), "a number or null"),
    "val_fraction": _NUMBER,
    "seed": ((int, type(None)), "a whole number or null"),
    "loss_fn": _TEXT,
    "temperature": _NUMBER,
    "temp_decay": _NUMBER,
    "alpha": _NUMBER,
    "lr_schedule_patience": _WHOLE,
    "lr_schedule_factor": _NUMBER,
    "quantization_applied": _TEXT,
    "optimizer": _TEXT,
    "optimizer_kwargs": ((dict,), "a mapping of options to numbers, such as {weight_decay: 0.01}"),
    "early_stopping_patience": _WHOLE,
    # AgentFarm has not got these.
    "normalise_q": ((bool,), "true or false"),
    "calibration": _TEXT,
}
"""What YAML may hold under each key."""


def read_finetuning_config(path: Path) -> FineTuningConfig:
    """Read the section ``crossover_child_finetune`` of a YAML file; its other sections are free.

    Args:
        path: YAML. What the section leaves out has its default.

    Raises:
        StageError: The file is missing or no YAML, has no such section, or a key of the section
            is unknown, of the wrong type or out of its range; all of the first two in one error.
    """
    from engine.config_file import MOST_BYTES
    from engine.strict_yaml import parse_yaml

    try:
        content = parse_yaml(read_regular(path, MOST_BYTES).decode(), str(path))
    except ConfigError as error:
        raise StageError(str(error)) from error
    except OSError as error:
        raise StageError(
            f"{path}: expected a YAML file with the section {SECTION}, but it cannot be read: "
            f"{error.strerror}"
        ) from error
    except UnicodeDecodeError as error:
        raise StageError(f"{path}: expected UTF-8 text, but byte {error.start} is not") from error
    section = content.get(SECTION) if isinstance(content, dict) else None
    if not isinstance(section, dict):
        found = "has none" if section is None else f"has {section!r} there"
        raise StageError(
            f"{path}: expected a section {SECTION} with settings such as 'epochs: 5', but the file "
            f"{found}"
        )
    problems = [problem for key, value in section.items() if (problem := _problem(key, value))]
    if problems:
        raise StageError(f"{path}: {'; '.join(problems)}")
    floats = {field.name for field in fields(FineTuningConfig) if KINDS[field.name] is _NUMBER}
    values: dict[str, Any] = {
        key: float(value) if key in floats else value for key, value in section.items()
    }
    try:
        return FineTuningConfig(**values)
    except StageError as error:
        raise StageError(f"{path}: {SECTION}.{error}") from error


def _problem(key: str, value: Any) -> str | None:
    """Return what is wrong with one key of the section, in words."""
    if key not in KINDS:
        close = difflib.get_close_matches(key, KINDS, 1)
        hint = f"did you mean {close[0]}?" if close else f"the settings are {', '.join(KINDS)}"
        return f"{SECTION}.{key} is not a setting: {hint}"
    types, expected = KINDS[key]
    is_right = isinstance(value, types) and (not isinstance(value, bool) or bool in types)
    if is_right and not (isinstance(value, int) and abs(value) >= 2**63):
        return None
    quoted = ", without quotes" if isinstance(value, str) and _is_number(value) else ""
    return f"{SECTION}.{key} must be {expected}{quoted}, not {value!r}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
