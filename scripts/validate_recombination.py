"""Compare a child with its parents: ``cultivar validate-recombination``."""

from engine.cli.main import run_command

if __name__ == "__main__":
    run_command("validate-recombination")
