"""Try a grid of crossovers and fine-tunings: ``cultivar crossover-search``."""

from engine.cli.main import run_command

if __name__ == "__main__":
    run_command("crossover-search")
