"""Compare hard, blended and soft targets: ``cultivar compare-distillation-modes``."""

from engine.cli.main import run_command

if __name__ == "__main__":
    run_command("compare-distillation-modes")
