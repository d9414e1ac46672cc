import dataclasses
from pathlib import Path

import numpy as np
import pytest

from engine.errors import StageError, TeacherError
from engine.learning.checkpoints import save_network
from engine.stages.cartpole.asked_training import AskedTraining
from engine.stages.cartpole.pair_states import states_of_parents
from engine.stages.cartpole.parent_pair import PairChoice, find_parents
from engine.stages.cartpole.parent_settings import ParentSettings
from engine.stages.networks import initial_weights, teacher_spec
from engine.stages.replay import replay_states
from engine.stages.roles import load_role
from populations.network import NetworkSpec

TINY = ParentSettings(episodes=2, eval_episodes=2, hidden=16)
FILES = ("student_A.pt",)
FLAGS = {
    "seed_a": "--seed-a",
    "seed_b": "--seed-b",
    "hidden": "--hidden-size",
    "learning_rate": "--train-lr",
    "log_every": "--log-every",
}


def asking(files: dict[str, Path], **settings: float) -> PairChoice:
    """Return a choice in which the user gave some settings."""
    training = dataclasses.replace(TINY, **settings)
    return PairChoice(files, training, AskedTraining(FLAGS, tuple(settings)))


def write_parent(path: Path, seed: int = 0, hidden: int = 16, n_inputs: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    spec = teacher_spec(n_inputs, 2, hidden)
    save_network(path, spec, initial_weights(spec, seed))
    return path


def write_states(path: Path, value: float, n: int = 100) -> np.ndarray:
    rows = np.full((n, 4), value, np.float32)
    rows[:, 0] = np.arange(n)
    np.save(path, rows)
    return rows


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("trained")
    find_parents(directory, PairChoice(training=TINY), FILES)
    return directory


def test_parents_that_are_there_are_used_again_unless_asked_otherwise(trained) -> None:
    before = (trained / "parent_A.pt").read_bytes()
    told: list[str] = []
    again = dataclasses.replace(TINY, seed_a=7)
    parents = find_parents(trained, PairChoice(training=again), FILES, told.append)
    assert [parent.origin for parent in parents.values()] == ["reused", "reused"]
    assert (trained / "parent_A.pt").read_bytes() == before
    assert "trained with seed 42 and not 7 (--force-train trains it again)" in told[0]
    assert "seed" not in told[1]


def test_a_setting_that_a_parent_contradicts_is_refused(trained) -> None:
    for settings, message in (
        ({"seed_b": 7}, r"parent_B\.pt: parent B was trained with --seed-b 99, not 7; leave out"),
        ({"hidden": 32}, r"--hidden-size 16, not 32; .* train anew with --force-train"),
        ({"learning_rate": 0.5}, r"with --train-lr 0\.001, not 0\.5"),
    ):
        with pytest.raises(StageError, match=message):
            find_parents(trained, asking({}, **settings), FILES)
    files = {label: trained / f"parent_{label}_int8.pt" for label in "AB"}
    with pytest.raises(StageError, match=r"--seed-a 42, not 7; .* or give another parent"):
        find_parents(trained, asking(files, seed_a=7), FILES)
    agreeing = asking({}, seed_a=42, hidden=16, learning_rate=1e-3, log_every=7)
    parents = find_parents(trained, agreeing, FILES)
    assert parents["A"].record()["settings"] == {
        "seed": 42,
        "hidden": 16,
        "episodes": 2,
        "learning_rate": 1e-3,
        "gamma": 0.99,
        "epsilon_start": 1.0,
        "epsilon_min": 0.05,
        "epsilon_decay": 0.995,
        "batch_size": 64,
        "max_replay_states": 200_000,
    }


def test_a_setting_of_which_a_parent_tells_nothing_is_said_to_change_nothing(tmp_path) -> None:
    files = {label: write_parent(tmp_path / f"{label}.pt") for label in "AB"}
    told: list[str] = []
    find_parents(tmp_path / "run", asking(files, seed_a=7, hidden=16), FILES, told.append)
    assert told[0].startswith("note: --seed-a changes nothing: parent A is given, and how it was")
    assert not any("--hidden-size" in line for line in told)


def test_a_parent_is_trained_to_fit_the_one_that_is_given(tmp_path) -> None:
    given = {"A": write_parent(tmp_path / "given.pt", hidden=24)}
    with pytest.raises(StageError, match="trained with --hidden-size 24, not 32"):
        find_parents(tmp_path / "run", asking(given, hidden=32), FILES)
    assert not (tmp_path / "run").exists()
    # A learning rate is for the parent that is trained.
    parents = find_parents(tmp_path / "run", asking(given, learning_rate=1e-4), FILES)
    assert parents["B"].origin == "trained"
    assert parents["B"].role.network.spec.hidden == (24, 24)
    assert parents["B"].record()["settings"]["learning_rate"] == 1e-4


def test_a_given_parent_that_none_trained_here_fits_is_refused_at_once(tmp_path) -> None:
    spec = NetworkSpec((4,), (16, 8), 2, norm="layer", dropout_slots=True)
    save_network(tmp_path / "odd.pt", spec, initial_weights(spec, 0))
    with pytest.raises(StageError, match=r"of \(16, 8\), norm layer; .* give the other parent"):
        find_parents(tmp_path / "run", PairChoice({"B": tmp_path / "odd.pt"}, TINY), FILES)
    assert not (tmp_path / "run").exists()


def test_force_train_trains_them_again(tmp_path) -> None:
    write_parent(tmp_path / "parent_A.pt")
    write_parent(tmp_path / "parent_B.pt")
    old = {name: (tmp_path / name).read_bytes() for name in ("parent_A.pt", "parent_B.pt")}
    choice = PairChoice(training=TINY, force_train=True)
    parents = find_parents(tmp_path, choice, FILES)
    assert [parent.origin for parent in parents.values()] == ["trained", "trained"]
    for name, content in old.items():
        assert (tmp_path / name).read_bytes() != content


def test_given_parents_are_neither_replaced_nor_mixed_up_with_those_of_the_folder(trained) -> None:
    before = {path.name: path.read_bytes() for path in trained.iterdir()}
    given = {label: write_parent(trained.parent / "x" / f"{label}.pt") for label in "AB"}
    choice = PairChoice(given, TINY, force_train=True)
    parents = find_parents(trained, choice, FILES)
    assert {label: parent.role.path for label, parent in parents.items()} == given
    assert {path.name: path.read_bytes() for path in trained.iterdir()} == before


def test_a_parent_that_is_given_would_not_be_overwritten(tmp_path) -> None:
    student = write_parent(tmp_path / "student_A.pt")
    with pytest.raises(StageError, match="given as parent A, but this run would overwrite it"):
        find_parents(tmp_path, PairChoice({"A": student, "B": student}, TINY), FILES)
    other = write_parent(tmp_path / "parent_A_int8.pt")
    with pytest.raises(StageError, match="given as parent B, but this run would overwrite it"):
        find_parents(tmp_path, PairChoice({"B": other}, TINY), FILES)


def test_bad_parents_are_refused_before_anything_is_trained(tmp_path) -> None:
    good = write_parent(tmp_path / "good.pt")
    wide = write_parent(tmp_path / "wide.pt", hidden=32)
    other = write_parent(tmp_path / "other.pt", n_inputs=8)
    broken = write_parent(tmp_path / "broken.pt")
    spec = teacher_spec(4, 2, 16)
    weights = initial_weights(spec, 0)
    weights["network.0.weight"][0, 0] = np.nan
    import torch

    torch.save({name: torch.from_numpy(tensor) for name, tensor in weights.items()}, broken)
    cases = [
        ({"A": tmp_path / "none.pt"}, TeacherError, "none.pt: expected the file of a trained"),
        ({"A": other}, StageError, "CartPole's 4 inputs and 2 actions, not of 8 and 2"),
        ({"B": broken}, StageError, "network.0.weight holds NaN or infinity; give another"),
        ({"A": good, "B": wide}, StageError, r"of \(16, 16\) and .*wide.pt of \(32, 32\)"),
    ]
    for files, error, message in cases:
        with pytest.raises(error, match=message):
            find_parents(tmp_path / "run", PairChoice(files, TINY), FILES)
    assert not (tmp_path / "run").exists()


def test_the_rows_are_the_documented_ones_and_the_next_are_held_out(tmp_path) -> None:
    files = {label: write_parent(tmp_path / f"parent_{label}.pt") for label in "AB"}
    a = write_states(tmp_path / "replay_states_A.npy", 0.1)
    b = write_states(tmp_path / "replay_states_B.npy", 0.2)
    parents = find_parents(tmp_path, PairChoice(files), FILES)
    states = states_of_parents(parents, 60, seed=42)
    # Source: AgentFarm's script merges both and takes the first rows of a permutation.
    order = np.random.default_rng(42).permutation(200)
    merged = np.vstack([a, b])
    np.testing.assert_array_equal(states.train, merged[order[:60]])
    np.testing.assert_array_equal(states.heldout, merged[order[60:120]])
    assert states.source == "CartPole-v1: replay_states_A.npy, replay_states_B.npy"


def test_few_states_are_split_so_that_some_are_held_out(tmp_path) -> None:
    files = {label: write_parent(tmp_path / f"parent_{label}.pt") for label in "AB"}
    for label in "AB":
        write_states(tmp_path / f"replay_states_{label}.npy", 0.1)  # the same rows twice
    told: list[str] = []
    parents = find_parents(tmp_path, PairChoice(files), FILES)
    states = states_of_parents(parents, 2000, seed=42, tell=told.append)
    assert told[0] == "note: --n-states asks for 2,000 states, but the parents saw only 200"
    assert len(states.train) + len(states.heldout) == 200
    assert len({row.tobytes() for row in states.heldout}) >= 32
    assert not {row.tobytes() for row in states.heldout} & {r.tobytes() for r in states.train}


def test_parents_from_elsewhere_keep_their_own_states(trained, tmp_path) -> None:
    files = {label: trained / f"parent_{label}_int8.pt" for label in "AB"}
    for label in "AB":
        write_states(tmp_path / f"replay_states_{label}.npy", 5.0)  # of other parents
    parents = find_parents(tmp_path, PairChoice(files), FILES)
    states = states_of_parents(parents, 100, seed=42)
    rows = [np.load(trained / f"replay_states_{label}.npy") for label in "AB"]
    order = np.random.default_rng(42).permutation(sum(map(len, rows)))
    np.testing.assert_array_equal(states.train, np.vstack(rows)[order[:100]])


def test_an_int8_parent_without_a_sidecar_has_the_states_beside_it(tmp_path) -> None:
    path = write_parent(tmp_path / "parent_B_int8.pt")
    rows = write_states(tmp_path / "replay_states_B.npy", 0.1)
    found = replay_states(load_role("parent_B", path))
    assert found is not None
    np.testing.assert_array_equal(found[0], rows)
    assert replay_states(load_role("x", write_parent(tmp_path / "x.pt"))) is None


def test_parents_without_states_play_for_some(tmp_path) -> None:
    files = {label: write_parent(tmp_path / f"{label}.pt", ord(label)) for label in "AB"}
    parents = find_parents(tmp_path, PairChoice(files), FILES)
    told: list[str] = []
    states = states_of_parents(parents, 100, seed=42, tell=told.append)
    assert "A.pt: no replay states are known, so it plays for some" in told[0]
    rows = np.concatenate([states.train, states.heldout])
    # Normal rows would often leave the angles of CartPole, which end an episode at 0.21.
    assert np.abs(rows[:, 2]).max() < 0.3
    assert states.source == "CartPole-v1: played by parent_A, played by parent_B"


def test_replay_states_that_were_replaced_are_refused(tmp_path) -> None:
    find_parents(tmp_path, PairChoice(training=TINY), FILES)
    write_states(tmp_path / "replay_states_A.npy", 1.0)
    parents = find_parents(tmp_path, PairChoice(training=TINY), FILES)
    with pytest.raises(StageError, match=r"replay_states_A.npy: expected what parent_A .* saw"):
        states_of_parents(parents, 100, seed=42)


def test_a_states_file_comes_first_and_is_used_whole(trained, tmp_path) -> None:
    rows = write_states(tmp_path / "rows.npy", 0.3, n=500)
    parents = find_parents(trained, PairChoice(training=TINY), FILES)
    states = states_of_parents(parents, 60, seed=42, states_file=tmp_path / "rows.npy")
    both = np.concatenate([states.train, states.heldout])
    assert len(states.heldout) == 50
    assert {row.tobytes() for row in both} == {row.tobytes() for row in rows}
