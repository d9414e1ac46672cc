"""Presets, files and overrides; every message that a user of them can see."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.config import RecipeConfig, RunConfig
from engine.config_file import describe_settings, dump_config, load_config, preset_names
from engine.errors import ConfigError
from engine.strict_yaml import parse_yaml, write_yaml, write_yaml_inline

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems_of(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, text), overrides)
    first, *lines = str(caught.value).split("\n")
    if not lines:
        return [first.partition(": ")[2]]
    assert first.endswith(f"run.yaml: {len(lines)} errors")
    return [line.strip() for line in lines]


# --- presets ---


def test_there_are_presets() -> None:
    assert CONFIGS
    assert list(preset_names()) == [path.stem for path in CONFIGS]
    assert {"smoke", "cartpole"} <= set(preset_names())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_preset_is_valid_and_says_how_it_is_run(path) -> None:
    config = load_config(path.stem)
    assert config == load_config(path)
    assert config.name == "run"  # which the command replaces by that of the run directory
    assert path.read_text(encoding="utf-8").splitlines()[0] == f"# cultivar evolve {path.stem}"


def differences(values: dict, defaults: dict) -> list[str]:
    same = []
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(defaults.get(key), dict):
            same += [f"{key}.{name}" for name in differences(value, defaults[key])]
        elif key in defaults and value == defaults[key]:
            same.append(key)
    return same


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_preset_holds_only_what_differs_from_the_defaults(path) -> None:
    values = parse_yaml(path.read_text(encoding="utf-8"), path.name)
    assert differences(values, RunConfig().model_dump(mode="json")) == []


def test_an_unknown_preset_is_compared_with_the_known_ones() -> None:
    with pytest.raises(
        ConfigError,
        match=r"no preset is named 'smok'\. Did you mean 'smoke'\? Available: cartpole, .*smoke",
    ):
        load_config("smok")


# --- files ---


def test_an_empty_file_is_all_defaults(tmp_path) -> None:
    assert load_config(write(tmp_path, "# nothing\n")) == RunConfig()


def test_a_file_without_suffix_is_read(tmp_path, monkeypatch) -> None:
    (tmp_path / "mine").write_text("seed: 3", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert load_config("mine").seed == 3


@pytest.mark.parametrize("name", ["nowhere.yaml", "nowhere/run"])
def test_a_missing_file_is_named(name) -> None:
    with pytest.raises(ConfigError, match=rf"{name}: expected a configuration file, .* missing"):
        load_config(name)


def test_a_folder_is_named(tmp_path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path)


def test_a_file_that_is_not_text_is_named(tmp_path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"seed: \xff")
    with pytest.raises(ConfigError, match=r"run\.yaml: expected UTF-8 text, but byte 6 is not"):
        load_config(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nevolution: [1", "line 2: expected ',' or ']'"),
        ("seed: 1\n  name: x\n", "line 2: mapping values are not allowed here"),
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "line 4: the key 'c' is given twice, first in line 3"),
        ("seed: 1\n\nseed: 2", "line 3: the key 'seed' is given twice, first in line 1"),
        ("1: x", "line 1: a key must be text, not 1"),
        ("? [a]\n: x", "line 1: a key must be text"),
        ("a: 1\nb: !!python/object/apply:os.system [ls]", "line 2: tags are not allowed"),
        ("a: !!set {x}", "line 1: tags are not allowed, but tag:yaml.org,2002:set"),
        ("a: ! x", "line 1: tags are not allowed"),
        ("a: &x [1]\nb: *x", "line 1: anchors and aliases are not allowed"),
        ("a: 1\n---\nb: 1", "but found another document"),
        ("a: 1\nb: \x07", "line 2: expected text, not a control character"),
        ("a: " + "[" * 2000, "expected a few levels of settings"),
        ("a: " + "9" * 5000, "limit .4300 digits."),
    ],
)
def test_what_is_not_plain_yaml_is_refused_with_its_line(tmp_path, text, message) -> None:
    with pytest.raises(ConfigError, match=rf"run\.yaml.*{message}"):
        load_config(write(tmp_path, text))


@pytest.mark.parametrize("text", ["[1, 2]", "hello", "5"])
def test_a_file_must_hold_settings(tmp_path, text) -> None:
    with pytest.raises(ConfigError, match="expected settings such as 'seed: 1', not"):
        load_config(write(tmp_path, text))


# --- wrong settings ---


def test_all_errors_are_reported_at_once(tmp_path) -> None:
    text = """
    evolution:
      generation: 3
      children: many
      population: 1
      recipes:
      - {operator: 3, weight: -1}
      - {}
      - {operator: [a, 3], align: [nobody], finetune: []}
      batch_size: 2.5
    finetune: {learning_rate: [1], target: parents}
    learning: {int8_in_loop: maybe, batch_size: 20}
    network: 5
    """
    assert problems_of(tmp_path, text, "evaluation.episodes=0", "typo") == [
        "typo: expected an override such as evolution.generations=20",
        "network must be a section of settings, not 5",
        "learning.batch_size must be a multiple of 32, not 20",
        "learning.int8_in_loop must be true or false, not 'maybe'",
        "finetune.learning_rate[1] is missing",
        "finetune.target must be 'teachers', 'better_parent' or 'none', not 'parents'",
        "evolution.population must be at least 2, not 1",
        "evolution.children must be a whole number, not 'many'",
        "evolution.batch_size must be a whole number, not 2.5",
        "evolution.recipes[0].operator must be text, not 3",
        "evolution.recipes[0].weight must be at least 1e-06, not -1",
        "evolution.recipes[1].operator is missing",
        "evolution.recipes[2].operator[1] must be text, not 3",
        "evolution.recipes[2].align[0] must be 'none', 'weights', 'activations' or 'auto', "
        "not 'nobody'",
        "evolution.recipes[2].finetune must be a list of at least 1, not []",
        "evolution.generation is not a setting. Did you mean evolution.generations?",
        "evaluation.episodes must be at least 1, not 0",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("generations: 5", "generations is not a setting. Did you mean evolution.generations?"),
        ("sead: 5", "sead is not a setting. Did you mean seed?"),
        (
            "evolution: {recipes: [{operator: slerp, wait: 2}]}",
            "evolution.recipes[0].wait is not a setting. Did you mean evolution.recipes[0].weight?",
        ),
        (
            "finetune_presets: {short: {stops: 2}}",
            "finetune_presets.short.stops is not a setting. "
            "Did you mean finetune_presets.short.steps?",
        ),
        (
            "network: {xyz: 5}",
            "network.xyz is not a setting. There are: hidden, norm, vector_dtype",
        ),
        (
            "evolution.generations: 5",
            "evolution.generations is not a setting: "
            "a file nests sections and has no dots in its keys",
        ),
    ],
)
def test_an_unknown_setting_gets_a_suggestion(tmp_path, text, message) -> None:
    assert problems_of(tmp_path, text) == [message]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: true", "seed must be a number, not true"),
        ("teachers: {hidden: [8, true]}", "teachers.hidden must be a number, not [8, true]"),
        ("dispatch: {workers: false}", "dispatch.workers must be a number, not false"),
        (
            "evolution: {recipes: [{operator: a}, {operator: b, weight: true}]}",
            "evolution.recipes[1].weight must be a number, not true",
        ),
        (
            "finetune_presets: {short: {steps: true}}",
            "finetune_presets.short.steps must be a number, not true",
        ),
    ],
)
def test_true_is_not_the_number_one(tmp_path, text, message) -> None:
    assert problems_of(tmp_path, text) == [message]


def test_settings_that_contradict_each_other_are_named(tmp_path) -> None:
    assert problems_of(tmp_path, "evolution: {elites: 9, population: 4}") == [
        "evolution.elites (9) must not exceed evolution.population (4)"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "evolution: {recipes: [{operator: a}, {operator: b, finetune: [default, shrot]}]}",
            "evolution.recipes[1].finetune: no preset is named 'shrot'. Did you mean 'short'? "
            "There are: default, short",
        ),
        (
            "finetune_presets: {default: {steps: 3}}",
            "finetune_presets.default: 'default' is finetune itself; choose another name",
        ),
        (
            "finetune_presets: {long: {learning_rate: [2, 1]}}",
            "finetune_presets.long.learning_rate must be a lower end and an upper end that is not "
            "below it, not [2, 1]",
        ),
        (
            "finetune_presets: {long: {inherit: [steps]}}",
            "finetune_presets.long.inherit[0] must be 'learning_rate' or 'temperature', "
            "not 'steps'",
        ),
        (
            "finetune_presets: {long: 7}",
            "finetune_presets.long must be a section of settings, not 7",
        ),
    ],
)
def test_what_is_wrong_with_a_preset_of_finetune_is_told(tmp_path, text, message) -> None:
    assert problems_of(tmp_path, text, "finetune_presets.short.steps=3") == [message]


def test_a_preset_of_finetune_holds_only_what_differs(tmp_path) -> None:
    path = write(
        tmp_path,
        """
        finetune: {steps: 7, hard_weight: 0.5}
        finetune_presets:
          short: {steps: 2}
          same: {}
        """,
    )
    config = load_config(path, ["finetune_presets.short.target=none"])
    short = config.preset("short")
    assert (short.steps, short.target, short.hard_weight) == (2, "none", 0.5)
    assert config.preset("same") == config.preset("default") == config.finetune
    dumped = parse_yaml(dump_config(config), "x")["finetune_presets"]
    assert dumped == {"short": {"steps": 2, "target": "none"}, "same": {}}


def test_a_recipe_may_hold_one_value_or_a_list(tmp_path) -> None:
    text = "evolution: {recipes: [{operator: [a, b], align: none}, {operator: a, align: [auto]}]}"
    first, second = load_config(write(tmp_path, text)).evolution.recipes
    assert (first.operator, first.align, first.finetune) == (("a", "b"), "none", "default")
    assert (second.operator, second.align) == ("a", ("auto",))


def test_a_long_value_is_cut(tmp_path) -> None:
    (problem,) = problems_of(tmp_path, f"network: {{norm: {'x' * 1000}}}")
    assert problem.endswith("xxx...")
    assert len(problem) < 120


# --- overrides ---


def test_overrides_win_over_the_file_and_over_earlier_ones(tmp_path) -> None:
    path = write(tmp_path, "evolution: {generations: 3, children: 5}\nseed: 1\n")
    config = load_config(path, ["evolution.generations=4", "seed=2", "evolution.generations=6"])
    assert (config.evolution.generations, config.evolution.children, config.seed) == (6, 5, 2)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("finetune.learning_rate=[1e-4, 1e-3]", {"finetune": {"learning_rate": (1e-4, 1e-3)}}),
        ("evolution.mutation=null", {"evolution": {"mutation": None}}),
        ("evolution.mutation=", {"evolution": {"mutation": None}}),
        (
            "evolution.selection.params.size=4",
            {"evolution": {"selection": {"params": {"size": 4}}}},
        ),
        ("environment.kwargs.name=a=b", {"environment": {"kwargs": {"name": "a=b"}}}),
        (
            "evolution.recipes=[{operator: slerp, params: {fraction: 0.3}}]",
            {"evolution": {"recipes": [{"operator": "slerp", "params": {"fraction": 0.3}}]}},
        ),
    ],
)
def test_the_value_of_an_override_is_yaml(tmp_path, override, value) -> None:
    assert load_config(write(tmp_path, ""), [override]) == RunConfig.model_validate(value)


def test_a_section_that_a_file_leaves_empty_can_be_filled(tmp_path) -> None:
    path = write(tmp_path, "evolution:\n  mutation: null\nnetwork:\n")
    config = load_config(path, ["evolution.mutation.name=uniform", "network.norm=layer"])
    assert config.evolution.mutation is not None
    assert (config.evolution.mutation.name, config.network.norm) == ("uniform", "layer")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "seed: expected an override such as evolution.generations=20"),
        ("=3", "=3: expected an override such as evolution.generations=20"),
        ("seed=[1", "seed=[1, line 1: expected ',' or ']', but got '<stream end>'"),
        ("seed.x=3", "seed.x=3: seed is 7, not a section"),
        ("evolution.generation=3", "evolution.generation is not a setting. Did you mean "),
        ("evolution..children=3", "evolution. is not a setting"),
    ],
)
def test_a_wrong_override_is_named(tmp_path, override, message) -> None:
    (problem,) = problems_of(tmp_path, "seed: 7", override)
    assert problem.startswith(message)


# --- and back ---

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values),
    max_leaves=8,
)
NUMBER_LIKE = st.sampled_from(
    [
        "1e-3",
        "0x1f",
        "010",
        "1_000",
        "12:30",
        "yes",
        "no",
        "null",
        "~",
        "",
        "2024-01-01",
        ".5",
        "-",
        "=",
    ]
)


@given(PLAIN)
@example({"\x85": "\u2028 \x85", "a": [float("inf"), "ü"]})
def test_plain_values_survive_yaml(value) -> None:
    assert parse_yaml(write_yaml(value), "x") == value
    assert parse_yaml(write_yaml_inline(value), "x") == value


@given(NUMBER_LIKE)
def test_text_that_looks_like_a_number_stays_text(text) -> None:
    assert parse_yaml(write_yaml({"a": text}), "x") == {"a": text}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1_000", 1000),
        ("no", "no"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
    ],
)
def test_scalars_are_read_as_in_yaml_1_2(text, value) -> None:
    assert parse_yaml(text, "x") == value


@given(
    st.builds(
        RunConfig,
        name=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        seed=st.integers(0, 2**63 - 1),
        plugins=st.lists(NUMBER_LIKE, max_size=3).map(tuple),
        finetune_presets=st.fixed_dictionaries(
            {"1e-3": st.sampled_from([{}, {"steps": 3}, {"inherit": ["temperature"]}])}
        ),
        evolution=st.fixed_dictionaries(
            {
                "mutation": st.none() | st.just({}),
                "recipes": st.lists(
                    st.builds(
                        RecipeConfig,
                        operator=NUMBER_LIKE | st.lists(NUMBER_LIKE, min_size=1, max_size=2),
                        finetune=st.sampled_from(["default", "1e-3", ["1e-3", "default"]]),
                        params=st.dictionaries(st.text(max_size=5), st.floats() | NUMBER_LIKE),
                        weight=st.floats(1e-6, 1e6),
                    ),
                    min_size=1,
                    max_size=3,
                ),
            }
        ),
    )
)
def test_a_dumped_configuration_is_read_back_equal(tmp_path_factory, config) -> None:
    path = tmp_path_factory.getbasetemp() / "dumped.yaml"
    path.write_text(dump_config(config), encoding="utf-8", newline="")
    again = load_config(path)
    assert dump_config(again) == dump_config(config)
    assert again == config or ".nan" in dump_config(config)  # a NaN equals nothing


# --- the list of settings ---


def test_every_setting_has_a_sentence() -> None:
    settings = describe_settings()
    assert len(settings) > 50
    for setting in settings:
        assert re.match(r"[A-Z`].{3,}\.$", setting.meaning), setting


def test_every_setting_of_a_dumped_configuration_is_described() -> None:
    names = {setting.name for setting in describe_settings()}

    def flatten(values: dict, prefix: str) -> list[str]:
        found = []
        for key, value in values.items():
            found.append(prefix + key)
            if isinstance(value, dict):
                found += flatten(value, f"{prefix}{key}.")
        return found

    dumped = flatten(parse_yaml(dump_config(RunConfig()), "x"), "")
    assert dumped
    assert set(dumped) <= names


def test_the_page_of_all_settings_is_current() -> None:
    command = [sys.executable, ROOT / "scripts" / "document_settings.py", "--check"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
