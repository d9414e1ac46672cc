"""Cross two parents and fine-tune the child: ``cultivar finetune``."""

from engine.cli.main import run_command

if __name__ == "__main__":
    run_command("finetune")
