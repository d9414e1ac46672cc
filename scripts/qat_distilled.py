"""Train students with int8 in the loop: ``cultivar qat``."""

from engine.cli.main import run_command

if __name__ == "__main__":
    run_command("qat")
