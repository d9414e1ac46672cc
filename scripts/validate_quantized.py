"""Compare int8 students with float ones: ``cultivar validate-quantized``."""

from engine.cli.main import run_command

if __name__ == "__main__":
    run_command("validate-quantized")
