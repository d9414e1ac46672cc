"""Expected metrics come from torch and scipy, from formulas, and from laws."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special, stats
from torch import Tensor

from engine.errors import StageError
from engine.stages.validation.fidelity import (
    METRICS,
    compare,
    label_metrics,
    probability_similarity,
    wilson_interval,
)


def values(seed: int, n_states: int = 200, n_actions: int = 4, scale: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (scale * rng.standard_normal((n_states, n_actions))).astype(np.float32)


PAIRS = st.integers(1, 6).flatmap(
    lambda n_actions: st.tuples(
        *[
            hnp.arrays(np.float32, (5, n_actions), elements=st.floats(-100, 100, width=32))
            for _ in range(2)
        ]
    )
)


@pytest.mark.parametrize(("n_actions", "scale"), [(1, 1.0), (2, 0.01), (4, 1.0), (18, 90.0)])
def test_metrics_equal_those_of_torch(n_actions: int, scale: float) -> None:
    a, b = values(0, n_actions=n_actions, scale=scale), values(1, n_actions=n_actions, scale=scale)
    metrics = compare(a, b)
    p, q = torch.from_numpy(a).double(), torch.from_numpy(b).double()
    divergence = F.kl_div(F.log_softmax(q, 1), F.softmax(p, 1), reduction="batchmean")
    assert metrics["kl_divergence"] == pytest.approx(float(divergence), rel=1e-9, abs=1e-12)
    assert metrics["mse"] == pytest.approx(float(F.mse_loss(q, p)))
    assert metrics["mae"] == pytest.approx(float(F.l1_loss(q, p)))
    assert metrics["mean_q_error"] == metrics["mae"]
    assert metrics["max_q_error"] == pytest.approx(float((q - p).abs().max()))
    cosine = float(F.cosine_similarity(p, q, dim=1).mean())
    assert metrics["mean_cosine_similarity"] == pytest.approx(cosine)
    agreement = float((p.argmax(1) == q.argmax(1)).double().mean())
    assert metrics["action_agreement"] == agreement
    for k in (1, 2, 3):
        among = (q.topk(min(k, n_actions), dim=1).indices == p.argmax(1, keepdim=True)).any(1)
        assert metrics["top_k_agreements"][str(k)] == float(among.double().mean())

    def center(x: Tensor) -> Tensor:
        return x - x.mean(1, keepdim=True)

    assert metrics["centered_mse"] == pytest.approx(float(F.mse_loss(center(q), center(p))))
    if n_actions > 1:
        centered = float(F.cosine_similarity(center(p), center(q), dim=1).mean())
        assert metrics["centered_cosine_similarity"] == pytest.approx(centered)


def test_divergence_equals_scipys_even_where_probabilities_vanish() -> None:
    a, b = values(2, scale=300.0), values(3, scale=3.0)
    p, q = special.softmax(a.astype(float), axis=1), special.softmax(b.astype(float), axis=1)
    expected = special.rel_entr(p, q).sum(axis=1).mean()
    assert (p == 0).any()
    assert compare(a, b)["kl_divergence"] == pytest.approx(expected)


@given(PAIRS)
def test_network_agrees_with_itself(pair: tuple[np.ndarray, np.ndarray]) -> None:
    q, _ = pair
    metrics = compare(q, q, (1, 9))
    assert metrics["action_agreement"] == 1
    assert metrics["top_k_agreements"] == {"1": 1, "9": 1}
    for name in ("kl_divergence", "mse", "mae", "max_q_error", "centered_mse"):
        assert metrics[name] == 0
    share_of_nonzero = (q != 0).any(axis=1).mean()
    assert metrics["mean_cosine_similarity"] == pytest.approx(share_of_nonzero)
    share_of_preferring = (np.ptp(q, axis=1) > 0).mean()
    assert metrics["centered_cosine_similarity"] == pytest.approx(share_of_preferring)


@given(PAIRS)
def test_metrics_stay_in_their_ranges(pair: tuple[np.ndarray, np.ndarray]) -> None:
    metrics = compare(*pair)
    assert metrics["kl_divergence"] >= 0
    assert metrics["max_q_error"] >= metrics["mae"] * (1 - 1e-12)
    assert -1 <= metrics["mean_cosine_similarity"] <= 1
    assert metrics["centered_mse"] <= metrics["mse"] * (1 + 1e-9)
    shares = list(metrics["top_k_agreements"].values())
    assert 0 <= metrics["action_agreement"] == shares[0] <= shares[1] <= shares[2] <= 1
    assert tuple(metrics) == METRICS


@given(PAIRS, st.floats(-1000, 1000), st.floats(-1000, 1000))
def test_centered_metrics_and_divergence_do_not_see_a_shift_of_all_actions(
    pair: tuple[np.ndarray, np.ndarray], first: float, second: float
) -> None:
    a, b = (np.round(q.astype(np.float64), 3) for q in pair)  # so that no gap is lost to a shift
    shifted, plain = compare(a + first, b + second), compare(a, b)
    for name in ("centered_mse", "centered_cosine_similarity", "kl_divergence"):
        assert shifted[name] == pytest.approx(plain[name], rel=1e-6, abs=1e-6)


def test_constant_values_have_a_cosine_of_zero() -> None:
    preferring, constant = np.float32([[0, 1, 2]]), np.float32([[0.1, 0.1, 0.1]])
    assert compare(constant, constant)["centered_cosine_similarity"] == 0
    assert compare(preferring, constant)["centered_cosine_similarity"] == 0
    assert compare(preferring, 0 * preferring)["mean_cosine_similarity"] == 0


def test_equal_values_go_to_the_lowest_action_in_every_metric() -> None:
    reference, query = np.float32([[0, 1, 0], [1, 0, 0]]), np.float32([[5, 5, 5], [5, 5, 5]])
    metrics = compare(reference, query)
    assert metrics["action_agreement"] == 0.5  # argmax of equal values is 0
    assert metrics["top_k_agreements"] == {"1": 0.5, "2": 1.0, "3": 1.0}


def test_k_above_the_number_of_actions_keeps_its_key() -> None:
    assert compare(values(0, n_actions=2), values(1, n_actions=2), (2, 3, 50))[
        "top_k_agreements"
    ] == {"2": 1.0, "3": 1.0, "50": 1.0}


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_make_every_metric_nan(broken: float) -> None:
    good = values(0)
    bad = good.copy()
    bad[7, 1] = broken
    for pair in ((good, bad), (bad, good)):
        metrics = compare(*pair, (1, 3))
        assert tuple(metrics) == METRICS
        assert metrics.pop("top_k_agreements").keys() == {"1", "3"}
        assert np.isnan(metrics.pop("action_agreement_ci95")).all()
        assert np.isnan(list(metrics.values())).all()


@pytest.mark.parametrize("shapes", [((3, 2), (3, 4)), ((3, 2), (4, 2)), ((0, 2), (0, 2)), (3, 3)])
def test_arrays_of_other_shapes_are_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match="expected Q-values of one shape"):
        compare(*(np.zeros(shape) for shape in shapes))


@pytest.mark.parametrize("k", [0, -1, 1.5, True])
def test_k_that_is_no_count_is_refused(k: float) -> None:
    with pytest.raises(StageError, match=r"--k-values must be whole numbers of at least 1.*not"):
        compare(values(0), values(1), [1, k])  # type: ignore[list-item]


@given(st.integers(1, 5000), st.data())
def test_interval_of_a_share_is_scipys(n: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, n))
    expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson_interval(hits / n, n), expected, atol=1e-9)


def test_label_metrics_equal_the_definition_action_by_action() -> None:
    rng = np.random.default_rng(5)
    labels, predictions = rng.integers(0, 4, 300), rng.integers(0, 5, 300)
    metrics = label_metrics(labels, predictions, 5)
    assert metrics["accuracy"] == pytest.approx((labels == predictions).mean())
    scores = []
    for action in range(5):
        hits = ((labels == action) & (predictions == action)).sum()
        precision = hits / (predictions == action).sum()
        recall = hits / max((labels == action).sum(), 1)
        f1 = stats.hmean([precision, recall]) if hits else 0.0
        assert metrics["per_class_f1"][action] == pytest.approx(f1)
        assert metrics["support"][action] == (labels == action).sum()
        scores.append(f1)
    assert metrics["macro_f1"] == pytest.approx(np.mean(scores[:4]))  # nothing is labelled 4
    assert metrics["n_classes"] == 5
    for right, chosen in np.ndindex(5, 5):
        expected = ((labels == right) & (predictions == chosen)).sum()
        assert metrics["confusion_matrix"][right][chosen] == expected


@pytest.mark.parametrize(
    "labels",
    [
        np.array([0, 1]),
        np.array([[0, 1, 2]]),
        np.array([0, 1, 4]),
        np.array([0, 1, -1]),
        np.array([0, 1, 0.5]),
        np.array([0, 1, np.nan]),
        np.array(["0", "1", "2"]),
    ],
)
def test_labels_that_are_no_actions_are_refused(labels: np.ndarray) -> None:
    with pytest.raises(StageError, match="labels must be 3 whole numbers from 0 to 3"):
        label_metrics(labels, np.array([0, 1, 2]), 4)


def test_a_hundred_thousand_states_take_less_than_two_seconds_of_cpu() -> None:
    a, b = values(0, 100_000), values(1, 100_000)
    start = time.process_time()
    compare(a, b)
    assert time.process_time() - start < 2


def test_probability_similarity_is_one_minus_the_mean_difference_of_the_softmaxes():
    rng = np.random.default_rng(0)
    one, other = (100 + 5 * rng.standard_normal((2, 40, 4))).astype(np.float32)
    p, q = (F.softmax(torch.from_numpy(x) / 2.5, dim=1) for x in (one, other))
    expected = 1 - (p - q).abs().mean().item()
    assert probability_similarity(one, other, 2.5) == pytest.approx(expected, abs=1e-5)
