"""Train a student to imitate each teacher: ``cultivar distill``."""

from engine.cli.main import run_command

if __name__ == "__main__":
    run_command("distill")
