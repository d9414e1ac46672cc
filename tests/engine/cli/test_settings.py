from __future__ import annotations

import pytest
import yaml
from click.testing import CliRunner

from engine.cli.settings import presets, settings
from engine.config_file import load_config, preset_names
from engine.errors import ConfigError
from engine.setting_list import describe_settings


def lines_of(*arguments: str) -> list[str]:
    command = presets if arguments[:1] == ("presets",) else settings
    result = CliRunner().invoke(command, arguments[1:], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output
    return result.stdout.splitlines()


def test_presets_are_listed_with_what_they_are_for_and_their_command() -> None:
    text = " ".join(" ".join(lines_of("presets")).split())
    assert preset_names()
    for name in preset_names():
        assert f"cultivar evolve {name}" in text
    assert (
        "smoke The whole run in seconds, to see that everything works together: it breeds nothing "
        "good. cultivar evolve smoke"
    ) in text


@pytest.mark.parametrize("columns", ["60", "80", "120"])
def test_lists_fit_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for lines in (lines_of("presets"), lines_of("settings")):
        assert lines
        assert max(map(len, lines)) <= int(columns)
        assert all(line == line.rstrip() for line in lines)


def test_settings_are_listed_with_default_and_meaning() -> None:
    lines = lines_of("settings")
    heads = [line.split(" ")[0] for line in lines if not line.startswith(" ")]
    assert heads == [setting.name for setting in describe_settings()]
    i = lines.index("evolution.generations = 10")
    assert lines[i + 1] == "    Generations after the students; 0 stops at generation 0."
    assert "evolution.recipes[].operator  (required)" in lines
    assert "evolution" in lines  # a section has no default


def test_a_shown_default_can_be_used_as_an_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    pairs = [line.split(" = ", 1) for line in lines_of("settings") if not line.startswith(" ")]
    plain = [(name, text) for name, text in (p for p in pairs if len(p) == 2) if "[]" not in name]
    assert len(plain) > 50
    config = load_config("cartpole", [f"{name}={text}" for name, text in plain])
    values = config.model_dump(mode="json")
    assert values["evolution"]["elites"] == yaml.safe_load(dict(plain)["evolution.elites"])


def test_a_pattern_is_sought_in_names_and_meanings() -> None:
    lines = lines_of("settings", "ELITES")
    assert lines[0] == "evolution.elites = 8"
    found = {
        line.split(" ")[0] for line in lines_of("settings", "Adam learning rate") if line[0] != " "
    }
    assert found == {"distillation.learning_rate", "finetune.learning_rate"}


def test_an_unknown_setting_is_answered_with_the_closest_one() -> None:
    with pytest.raises(
        ConfigError, match=r"no setting has 'generatoins'.*evolution\.generations\?"
    ):
        lines_of("settings", "generatoins")
    with pytest.raises(ConfigError, match="'cultivar settings' lists them all"):
        lines_of("settings", "qqqqqq")


def test_texts_that_a_setting_can_be_are_named() -> None:
    meanings = {setting.name: setting.meaning for setting in describe_settings()}
    assert meanings["distillation.ancestor"].endswith("Choices: ``shared``, ``independent``.")
    assert "Choices" not in meanings["dispatch.address"]  # any host will do
    assert meanings["evolution.recipes[].align"].endswith(
        "Choices: ``none``, ``weights``, ``activations``, ``auto``."
    )
