"""AgentFarm's network, built with torch alone."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

AgentFarmNetwork = Callable[..., nn.Module]


class BaseQNetwork(nn.Module):
    """What AgentFarm trains: its layers under ``network``, Xavier weights, biases zero."""

    def __init__(self, n_inputs: int, n_actions: int, hidden: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for n_in in (n_inputs, hidden):
            layers += [nn.Linear(n_in, hidden), nn.LayerNorm(hidden)]
            layers += [nn.ReLU(), nn.Dropout(dropout)]
        self.network = nn.Sequential(*layers, nn.Linear(hidden, n_actions))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.constant_(module.bias, 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)


@pytest.fixture(scope="session")
def agentfarm_network() -> AgentFarmNetwork:
    """Return a maker of such networks, in eval mode, from a seed."""

    def make(n_inputs: int, n_actions: int, hidden: int, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return BaseQNetwork(n_inputs, n_actions, hidden, dropout=0.1).eval()

    return make
