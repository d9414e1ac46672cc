import dataclasses

import pytest

from engine.errors import StageError
from engine.stages.recombination.finetuning_config import (
    KINDS,
    FineTuningConfig,
    read_finetuning_config,
)

# Source: the section of this name in AgentFarm's default.yaml.
AGENTFARM = """
crossover_child_finetune:
  learning_rate: 0.001
  epochs: 5
  batch_size: 32
  max_grad_norm: 1.0
  val_fraction: 0.1
  seed: null
  loss_fn: kl
  temperature: 3.0
  temp_decay: 1.0
  alpha: 1.0
  lr_schedule_patience: 0
  lr_schedule_factor: 0.5
  quantization_applied: none
  optimizer: adam
  optimizer_kwargs: {}
  early_stopping_patience: 0
"""


def written(tmp_path, text):
    path = tmp_path / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def section(**settings):
    lines = [f"  {key}: {value}" for key, value in settings.items()]
    return "\n".join(["crossover_child_finetune:", *lines])


def test_the_defaults_are_those_of_agentfarm(tmp_path):
    assert read_finetuning_config(written(tmp_path, AGENTFARM)) == FineTuningConfig()


def test_every_setting_can_be_in_a_file():
    assert set(KINDS) == {field.name for field in dataclasses.fields(FineTuningConfig)}


def test_other_sections_are_free_and_what_is_left_out_has_its_default(tmp_path):
    text = "other:\n  epochs: many\n" + section(
        epochs=7, learning_rate=1, optimizer="sgd", optimizer_kwargs="{momentum: 0.9}"
    )
    config = read_finetuning_config(written(tmp_path, text))
    expected = FineTuningConfig(
        epochs=7, learning_rate=1.0, optimizer="sgd", optimizer_kwargs={"momentum": 0.9}
    )
    assert config == expected
    assert isinstance(config.learning_rate, float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (section(learning_rat=5.0), r"learning_rat is not a setting: did you mean learning_rate\?"),
        (section(zebra=1), "zebra is not a setting: the settings are learning_rate, epochs"),
        (section(learning_rate="'1e-3'"), "learning_rate must be a number, without quotes"),
        (section(epochs=2.5), "epochs must be a whole number, not 2.5"),
        (section(epochs="true"), "epochs must be a whole number, not True"),
        (section(epochs="five"), "epochs must be a whole number, not 'five'"),
        (section(seed=10**400), "seed must be a whole number or null, not 1000"),
        (section(max_grad_norm="[1]"), r"max_grad_norm must be a number or null, not \[1\]"),
        (section(normalise_q=1), "normalise_q must be true or false, not 1"),
        (section(optimizer_kwargs=3), "optimizer_kwargs must be a mapping"),
        (section(temperature="null"), "temperature must be a number, not None"),
        (section(temperature=-1), r"crossover_child_finetune\.temperature must be a positive"),
        (section(temperature=".nan"), r"crossover_child_finetune\.temperature must be a positive"),
        (section(optimizer="adagrad"), "optimizer must be one of adam, adamw, sgd, rmsprop"),
        (section(quantization_applied="int4"), "quantization_applied must be one of none, ptq_dyn"),
        (section(optimizer_kwargs="{betas: 1}"), "optimizer_kwargs of adam may be weight_decay"),
        (section(loss_fn="l1"), "loss_fn must be kl or mse"),
        ("", "expected a section crossover_child_finetune .* has none"),
        ("crossover_child_finetune:", "expected a section .* has none"),
        ("crossover_child_finetune: 3", "has 3 there"),
        ("- 1", "expected a section"),
        ("a: [", r"settings\.yaml, line 1"),
        (section(epochs=1) + "\n  epochs: 2", "'epochs' is given twice"),
    ],
)
def test_a_mistake_names_file_key_and_what_was_expected(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(StageError, match=message) as caught:
        read_finetuning_config(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_wrong_keys_are_told_at_once(tmp_path):
    path = written(tmp_path, section(epoch=1, batch_size="'32'"))
    with pytest.raises(StageError, match=r"epoch is not a setting.*; .*batch_size must be"):
        read_finetuning_config(path)


def test_a_missing_file_and_one_that_is_no_text_are_told(tmp_path):
    with pytest.raises(StageError, match=r"none\.yaml: expected a YAML file .* cannot be read"):
        read_finetuning_config(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff")
    with pytest.raises(StageError, match=r"bytes.yaml: expected UTF-8 text, but byte 0"):
        read_finetuning_config(tmp_path / "bytes.yaml")


@pytest.mark.parametrize(
    ("applied", "in_loop", "exported"),
    [
        ("none", False, False),
        ("qat_float", True, False),
        ("ptq_dynamic", True, True),
        ("ptq_static", True, True),
    ],
)
def test_what_quantization_means(applied, in_loop, exported):
    config = FineTuningConfig(quantization_applied=applied)
    assert (config.is_int8_in_loop, config.exports_int8) == (in_loop, exported)


def test_the_record_holds_the_seed_that_was_used_and_the_last_temperature():
    config = FineTuningConfig(temperature=4.0, temp_decay=0.5)
    assert config.record(3)["final_temperature"] == 1.0  # 4, 2, 1
    assert config.record(1)["final_temperature"] == 4.0
    assert config.record(1)["seed"] == 42
