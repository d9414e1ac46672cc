"""Run the whole pipeline on CartPole: ``cultivar dual-teacher-cartpole``."""

from engine.cli.main import run_command

if __name__ == "__main__":
    run_command("dual-teacher-cartpole")
