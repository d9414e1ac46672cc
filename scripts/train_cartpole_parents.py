"""Train the two CartPole parents: ``cultivar train-cartpole-parents``."""

from engine.cli.main import run_command

if __name__ == "__main__":
    run_command("train-cartpole-parents")
