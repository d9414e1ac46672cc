"""Names of the files in a run directory; imports nothing, so that reading a run stays fast."""

from pathlib import Path

CONFIG = "config.yaml"
JOURNAL = "journal.jsonl"
LOCK = "run.lock"
STATES = "states.npz"
CHAMPION = "champion.safetensors"
SUMMARY = "champion.json"
LARGEST_SUMMARY = 2**24
"""Bytes that a summary can have."""
RECIPES = "recipes.csv"
SEARCH_SETTINGS = "search_config.json"
GENERATIONS_SETTINGS = "multi_gen_config.json"


def pack_path(run_directory: Path, generation: int) -> Path:
    """Return where the genomes born in a generation lie."""
    return run_directory / "genomes" / f"gen-{generation:04d}.safetensors"


def teacher_path(run_directory: Path, name: str) -> Path:
    """Return where a run keeps its copy of a teacher."""
    return run_directory / "teachers" / f"{name}.safetensors"
