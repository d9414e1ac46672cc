"""Breed two parents over several generations: ``cultivar multi-gen-search``."""

from engine.cli.main import run_command

if __name__ == "__main__":
    run_command("multi-gen-search")
