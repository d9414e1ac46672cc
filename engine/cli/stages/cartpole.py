"""The CartPole commands: ``cultivar train-cartpole-parents``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from engine.cli.stages.one_writer import one_writer
from engine.cli.stages.options import FILE, labels, pair_option
from engine.cli.stages.parent_options import parent_options
from engine.cli.stages.value_types import COUNT
from engine.cli.stages.wrapping import say
from engine.stages.cartpole.parent_settings import ParentSettings


@click.command()
@pair_option()
@parent_options()
@click.option(
    "--eval-episodes",
    type=COUNT,
    default=ParentSettings.eval_episodes,
    show_default=True,
    help="Held-out episodes that each network plays at the end.",
)
@click.option(
    "--output-dir", type=FILE, default="checkpoints/cartpole", show_default=True, help="Folder."
)
@one_writer
def train_cartpole_parents(
    pair: str, parents: ParentSettings, eval_episodes: int, output_dir: Path
) -> None:
    """Train two CartPole networks with PQN, and round them to int8.

    Both train side by side, and the best of eight greedy checkpoints is kept of each. The folder
    gets parent_A.pt, parent_A_int8.pt (int8 codes and scales), replay_states_A.npy (what it saw in
    training), a .pt.json with the returns beside each network, and the same for B. Without a
    target network and a replay memory, --tau and the size of the memory change nothing.
    """
    from engine.stages.cartpole.parents import train_parents  # imports torch

    settings = dataclasses.replace(parents, labels=labels(pair), eval_episodes=eval_episodes)
    for parent in train_parents(settings, output_dir, say):
        say(
            f"wrote {output_dir / parent.name}.pt, {parent.name}_int8.pt and "
            f"replay_states_{parent.label}.npy ({len(parent.replay_states):,} states)"
        )
