"""Compare students with their teachers: ``cultivar validate-distillation``."""

from engine.cli.main import run_command

if __name__ == "__main__":
    run_command("validate-distillation")
