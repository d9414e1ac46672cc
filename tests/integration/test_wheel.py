"""cultivar works without a checkout: it is built, installed elsewhere and imported from there."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from engine.config_file import dump_config, load_config
from populations.storage import load_genome

ROOT = Path(__file__).parents[2]
PIP = [sys.executable, "-m", "pip"]
OFFLINE = ["--no-deps", "--no-build-isolation", "--no-index"]


def run(command: list[str | Path], cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment | {"PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment_with(folder: Path, *what: str | Path) -> Path:
    """Install ``what`` into a new environment that borrows our dependencies.

    A ``.pth`` file lends the folder of the dependencies but not what the ``.pth`` files there
    install, which is how the checkout itself is usually found.
    """
    run([sys.executable, "-m", "venv", "--without-pip", folder], folder.parent)
    python = folder / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run([python, "-c", code], folder).strip())
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    run([*PIP, "--python", python, "install", *OFFLINE, *what], folder)
    return folder / "bin"


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Copy what goes into the wheel, so that no old build folder takes part."""
    source = tmp_path_factory.mktemp("source")
    for name in ("engine", "strategies", "populations", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    return source


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run([*PIP, "wheel", *OFFLINE, "--wheel-dir", folder, source], folder)
    (built,) = folder.glob("cultivar-*.whl")
    return built


def test_the_wheel_holds_all_packages_and_presets_and_nothing_else(source, wheel) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    expected = {
        path.relative_to(source).as_posix()
        for package in ("engine", "strategies", "populations")
        for path in (source / package).rglob("*.py")
    } | {
        f"engine/presets/{name}"
        for name in ("__init__.py", *(path.name for path in (source / "configs").glob("*.yaml")))
    }
    assert expected
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_presets_of_the_installed_wheel_are_those_of_the_checkout(wheel, tmp_path) -> None:
    programs = environment_with(tmp_path / "environment", wheel)
    code = (
        "import engine; from engine.config_file import dump_config, load_config; "
        "print(engine.__file__); print(dump_config(load_config('smoke')), end='')"
    )
    location, _, dumped = run([programs / "python", "-c", code], tmp_path).partition("\n")
    assert Path(location).is_relative_to(programs.parent)
    assert dumped == dump_config(load_config("smoke"))


def test_the_installed_wheel_has_the_command(wheel, tmp_path) -> None:
    programs = environment_with(tmp_path / "environment", wheel)
    assert (programs / "cultivar").is_file()


def test_presets_of_an_editable_install_are_a_package_too(source, tmp_path) -> None:
    programs = environment_with(tmp_path / "environment", "--editable", source)
    code = (
        "from importlib import resources; print(resources.files('engine.presets') / 'smoke.yaml')"
    )
    found = run([programs / "python", "-c", code], tmp_path)
    assert Path(found.strip()).samefile(source / "configs" / "smoke.yaml")


def test_the_installed_command_breeds_a_champion_in_an_empty_folder(wheel, tmp_path) -> None:
    programs = environment_with(tmp_path / "environment", wheel)
    folder = tmp_path / "empty"
    folder.mkdir()
    results = tmp_path / "run"
    run([programs / "cultivar", "evolve", "smoke", "--workers", "0", "--run-dir", results], folder)
    champion = json.loads((results / "champion.json").read_text(encoding="utf-8"))
    assert load_genome(results / "champion.safetensors").id == champion["genome"]
    assert list(folder.iterdir()) == []
