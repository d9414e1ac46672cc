"""What networks saw while they played, put in an order that does not depend on how they played."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Visits:
    """Observations as they come, step by step, from many networks and episodes at once."""

    def __init__(self) -> None:
        self._observations: list[NDArray[np.float32]] = []
        self._keys: list[NDArray[np.intp]] = []

    def add(
        self,
        observations: NDArray[np.float32],
        networks: NDArray[np.intp],
        episodes: NDArray[np.intp],
        steps: NDArray[np.intp],
    ) -> None:
        """Note ``n`` observations, ``(n, n_inputs)``, and of whom, in which episode, at which step.

        The observations must not be changed afterwards.
        """
        self._observations.append(observations)
        self._keys.append(np.stack([steps, episodes, networks]))

    def by_network(self, n_networks: int) -> tuple[NDArray[np.float32], ...]:
        """Return the observations of each network, ordered by episode and step."""
        observations = np.concatenate(self._observations)
        keys = np.concatenate(self._keys, axis=1)
        order = np.lexsort(keys)  # the last key counts most
        starts = np.searchsorted(keys[2, order], np.arange(1, n_networks))
        return tuple(np.split(observations[order], starts))
