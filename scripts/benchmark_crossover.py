"""Measure the three crossover strategies: ``cultivar benchmark-crossover``."""

from engine.cli.main import run_command

if __name__ == "__main__":
    run_command("benchmark-crossover")
