"""Turn students into int8: ``cultivar quantize``."""

from engine.cli.main import run_command

if __name__ == "__main__":
    run_command("quantize")
