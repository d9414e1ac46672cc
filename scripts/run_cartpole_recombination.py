"""Cross two CartPole parents and fine-tune: ``cultivar cartpole-recombination``."""

from engine.cli.main import run_command

if __name__ == "__main__":
    run_command("cartpole-recombination")
