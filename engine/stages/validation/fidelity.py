"""How close the Q-values of one network are to those of another, state by state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import StageError

Z_95 = 1.959963984540054
"""Quantile of the normal distribution for a two-sided interval of 95 %."""

METRICS = (
    "action_agreement",
    "action_agreement_ci95",
    "top_k_agreements",
    "kl_divergence",
    "mse",
    "mae",
    "mean_cosine_similarity",
    "centered_mse",
    "centered_cosine_similarity",
    "mean_q_error",
    "max_q_error",
)
"""What :func:`compare` returns, in order."""


def compare(
    reference_q: NDArray[np.floating],
    query_q: NDArray[np.floating],
    k_values: Sequence[int] = (1, 2, 3),
) -> dict[str, Any]:
    """Compare the Q-values of a query network with those of a reference, in float64.

    Every metric is a mean over states, but for ``max_q_error``. The best action is the one with
    the highest Q-value, the lowest number among equals, here as in play.

    * ``action_agreement``: share of states in which both have the same best action, and
      ``action_agreement_ci95``, its interval; see :func:`wilson_interval`.
    * ``top_k_agreements``: by ``str(k)``, share of states in which the reference's best action is
      among the query's k best. A k above the number of actions counts as that number, and so
      gives 1; the key is always the k that was asked for.
    * ``kl_divergence``: ``KL(p || q)`` in nats of the softmax at temperature 1, p of the reference.
    * ``mse``, ``mae``: over states and actions; ``mean_q_error`` is ``mae`` under its other name.
    * ``max_q_error``: the largest ``|difference|`` of all.
    * ``mean_cosine_similarity``: of the two vectors of Q-values of a state; 0 where one is zero.
    * ``centered_mse``, ``centered_cosine_similarity``: the same after each network's mean over
      actions was taken off. What shifts all actions of a state alike changes no decision, and
      these do not see it. The cosine is 0 where a network values all actions alike.

    Args:
        reference_q: Q-values of shape ``(N, A)``.
        query_q: Q-values of the same shape, for the same states.
        k_values: Values of k, each at least 1.

    Returns:
        The metrics as plain JSON values. Where any input is NaN or infinite, all of them are NaN.

    Raises:
        StageError: A k is not a whole number of at least 1.
        ValueError: The shapes differ, or there is no state or no action.
    """
    check_k_values(k_values)
    if reference_q.ndim != 2 or reference_q.shape != query_q.shape or reference_q.size == 0:
        raise ValueError(
            "expected Q-values of one shape (n_states, n_actions) without a zero, "
            f"not {reference_q.shape} and {query_q.shape}"
        )
    if not (np.isfinite(reference_q).all() and np.isfinite(query_q).all()):
        return _unknown(k_values)
    reference, query = reference_q.astype(np.float64), query_q.astype(np.float64)
    best = reference.argmax(axis=1)
    ranks = _ranks(query, best)
    agreement = float((ranks == 0).mean())
    error = np.abs(query - reference)
    centered_reference, centered_query = _centered(reference), _centered(query)
    return {
        "action_agreement": agreement,
        "action_agreement_ci95": wilson_interval(agreement, len(ranks)),
        "top_k_agreements": {str(k): float((ranks < k).mean()) for k in k_values},
        "kl_divergence": _mean_divergence(reference, query),
        "mse": float(np.square(error).mean()),
        "mae": float(error.mean()),
        "mean_cosine_similarity": _mean_cosine(reference, query),
        "centered_mse": float(np.square(centered_query - centered_reference).mean()),
        "centered_cosine_similarity": _mean_cosine(centered_reference, centered_query),
        "mean_q_error": float(error.mean()),
        "max_q_error": float(error.max()),
    }


def probability_similarity(
    reference_q: NDArray[np.floating], query_q: NDArray[np.floating], temperature: float
) -> float:
    """Return ``1 - mean |p - q|`` over states and actions, ``p`` and ``q`` the softmax of both.

    Args:
        reference_q: Q-values ``(N, n_actions)``.
        query_q: Q-values of the same shape.
        temperature: Of both softmaxes.
    """
    logits = (values.astype(np.float64) / temperature for values in (reference_q, query_q))
    p, q = (np.exp(_log_softmax(values)) for values in logits)
    return 1 - float(np.abs(p - q).mean())


def wilson_interval(share: float, n: int) -> list[float]:
    """Return the 95 % interval ``[low, high]`` of a share that was seen in ``n`` draws.

    The draws count as independent; consecutive states of one episode are not, so for them it is
    too narrow. Source: Wilson 1927, "Probable Inference, the Law of Succession, and Statistical
    Inference", JASA 22, equation 5.
    """
    if math.isnan(share):
        return [math.nan, math.nan]
    shrink = 1 + Z_95**2 / n
    center = (share + Z_95**2 / (2 * n)) / shrink
    half = Z_95 * math.sqrt(share * (1 - share) / n + (Z_95 / (2 * n)) ** 2) / shrink
    return [max(0.0, center - half), min(1.0, center + half)]


def check_k_values(k_values: Sequence[int]) -> None:
    """Refuse values of k that are not whole numbers of at least 1.

    Raises:
        StageError: As said.
    """
    for k in k_values:
        if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
            raise StageError(
                f"--k-values must be whole numbers of at least 1, for example 1,2,3, not {k!r}"
            )


def label_metrics(
    labels: NDArray[Any], predictions: NDArray[np.integer], n_actions: int
) -> dict[str, Any]:
    """Compare actions with actions that are known to be right.

    Args:
        labels: The right action of each state, whole numbers in ``[0, n_actions)``, ``(N,)``.
        predictions: The action that was chosen, ``(N,)``.
        n_actions: Number of actions, A.

    Returns:
        ``accuracy``; ``macro_f1``, the mean of the F1 scores of the actions among the labels;
        ``confusion_matrix``, ``(A, A)`` counts with one row per right action; ``n_classes``, A;
        ``support``, how often each action is right; ``per_class_f1``, 0 for an action that never
        is.

    Raises:
        StageError: The labels are no actions, or not one for each state.
    """
    right = np.asarray(labels)
    expected = f"labels must be {len(predictions)} whole numbers from 0 to {n_actions - 1}"
    if right.shape != predictions.shape or len(right) == 0:
        raise StageError(f"{expected}, one for each state, but their shape is {right.shape}")
    is_number = right.dtype.kind in "iuf"
    if not is_number or not ((right >= 0) & (right < n_actions) & (right == np.rint(right))).all():
        raise StageError(f"{expected}; put right those that are not")
    pairs = right.astype(np.int64) * n_actions + predictions
    confusion = np.bincount(pairs, minlength=n_actions**2).reshape(n_actions, n_actions)
    hits, support, chosen = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    f1 = np.where(support > 0, 2 * hits / np.maximum(support + chosen, 1), 0.0)
    return {
        "accuracy": float(hits.sum() / len(right)),
        "macro_f1": float(f1[support > 0].mean()),
        "confusion_matrix": confusion.tolist(),
        "n_classes": n_actions,
        "support": support.tolist(),
        "per_class_f1": f1.tolist(),
    }


def _unknown(k_values: Sequence[int]) -> dict[str, Any]:
    """Return the metrics of Q-values that are no numbers."""
    nan = math.nan
    structured = {
        "action_agreement_ci95": [nan, nan],
        "top_k_agreements": {str(k): nan for k in k_values},
    }
    return dict.fromkeys(METRICS, nan) | structured


def _ranks(values: NDArray[np.float64], actions: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the place of one action of each state, ``(N,)``; 0 is the best, ties by number."""
    own = np.take_along_axis(values, actions[:, None], axis=1)
    earlier = np.arange(values.shape[1]) < actions[:, None]
    ranks: NDArray[np.intp] = ((values > own) | ((values == own) & earlier)).sum(axis=1)
    return ranks


def _centered(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take the mean over actions off; rows of equal values become exactly zero."""
    centered: NDArray[np.float64] = values - values.mean(axis=1, keepdims=True)
    centered[np.ptp(values, axis=1) == 0] = 0
    return centered


def _mean_cosine(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the mean cosine of the rows of ``(N, A)``; 0 where a row is zero."""
    dot = (first * second).sum(axis=1)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosines = np.divide(dot, norms, out=np.zeros_like(dot), where=norms > 0)
    return float(np.clip(cosines, -1, 1).mean())


def _mean_divergence(reference: NDArray[np.float64], query: NDArray[np.float64]) -> float:
    """Return the mean ``KL(softmax(reference) || softmax(query))`` over states, in nats."""
    log_p, log_q = _log_softmax(reference), _log_softmax(query)
    divergences = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    return float(np.maximum(divergences, 0).mean())  # rounding may leave -1e-17


def _log_softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = values - values.max(axis=1, keepdims=True)
    log_softmax: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log_softmax
