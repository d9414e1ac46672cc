"""The page about clusters and the files that it speaks of, as far as one machine can check them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.cli.run import evolve, resume
from engine.config_file import preset_names
from engine.exit_codes import INTERRUPTED, USER_ERROR

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
CONFIGS = ROOT / "configs" / "cluster"
RAY = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)[0]


@pytest.fixture(scope="module")
def kubernetes() -> dict[str, dict[str, Any]]:
    """Return the objects of the file for Kubernetes, by their kinds."""
    text = (CONFIGS / "kuberay.yaml").read_text(encoding="utf-8")
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


# In a process of its own: Ray settles once per process whether it uses a token, and the tests that
# start one come later.
VALIDATE = """
import sys, yaml
from ray.autoscaler._private.util import prepare_config, validate_config
prepared = prepare_config(yaml.safe_load(open(sys.argv[1], encoding="utf-8")))
validate_config(prepared)
print(prepared["max_workers"])
"""


def test_ray_takes_the_file_for_ray_up() -> None:
    file = CONFIGS / "ray-up.yaml"
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    command = [sys.executable, "-W", "ignore", "-c", VALIDATE, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == str(len(config["provider"]["worker_ips"]))
    for role in ("head", "worker"):
        *_, start = config[f"{role}_start_ray_commands"]
        assert "RAY_AUTH_MODE=token" in shlex.split(start)


def test_all_files_give_the_same_limits_on_silence(kubernetes, system_config) -> None:
    limits = json.loads(system_config)
    config = yaml.safe_load((CONFIGS / "ray-up.yaml").read_text(encoding="utf-8"))
    options = shlex.split(config["head_start_ray_commands"][-1])
    (given,) = (option for option in options if option.startswith("--system-config="))
    assert json.loads(given.partition("=")[2]) == limits
    spec = kubernetes["RayJob"]["spec"]["rayClusterSpec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        variables = {entry["name"]: entry["value"] for entry in container["env"]}
        assert {
            name.removeprefix("RAY_"): int(value)
            for name, value in variables.items()
            if name.startswith("RAY_")
        } == limits


def test_kubernetes_gets_a_token_a_head_without_cpus_and_the_ray_that_is_installed(
    kubernetes,
) -> None:
    assert sorted(kubernetes) == ["PersistentVolumeClaim", "RayJob"]
    spec = kubernetes["RayJob"]["spec"]["rayClusterSpec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert spec["rayVersion"] == RAY
    assert f"FROM rayproject/ray:{RAY}-py311\n" in PAGE
    (volume,) = spec["headGroupSpec"]["template"]["spec"]["volumes"]
    claim = volume["persistentVolumeClaim"]["claimName"]
    assert claim == kubernetes["PersistentVolumeClaim"]["metadata"]["name"]


def test_commands_of_the_page_and_the_files_have_options_that_exist(kubernetes) -> None:
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```$", PAGE, re.M | re.S))
    text = "\n".join([blocks, kubernetes["RayJob"]["spec"]["entrypoint"]]).replace("\\\n", " ")
    known = {
        command.name: {option for parameter in command.params for option in parameter.opts}
        for command in (evolve, resume)
    }
    found = re.findall(r"cultivar (evolve|resume)([^\n']*)", text)
    assert len(found) >= 4
    for command, options in found:
        assert set(re.findall(r"--[a-z-]+", options)) <= known[command]


def test_commands_of_ray_on_the_page_exist() -> None:
    named = set(re.findall(r"^ray ([a-z_-]+)", PAGE, re.M))
    assert {"start", "up", "rsync-down"} <= named
    command = [sys.executable, "-W", "ignore", "-m", "ray.scripts.scripts", "--help"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    listed = said.partition("Commands:\n")[2]
    assert named <= set(re.findall(r"^  ([a-z-]+)", listed, re.M))


def test_files_for_clusters_are_no_presets() -> None:
    names = {"cultivar.service", "kuberay.yaml", "ray-up.yaml", "system-config.json"}
    assert {path.name for path in CONFIGS.iterdir()} == names
    assert not {"cluster", "cultivar", "kuberay", "ray-up", "system-config"} & set(preset_names())
    for name in names:
        assert f"configs/cluster/{name}" in PAGE


def test_the_unit_starts_a_supervised_run_again_but_not_what_has_to_be_mended(tmp_path) -> None:
    text = (CONFIGS / "cultivar.service").read_text(encoding="utf-8")
    unit = ConfigParser(interpolation=None)
    unit.optionxform = str
    unit.read_string(text)
    service = unit["Service"]
    program, stage, preset, *options = shlex.split(service["ExecStart"])
    assert (stage, preset) == ("evolve", "cartpole")
    assert "--supervise" in options
    known = {option for parameter in evolve.params for option in parameter.opts}
    assert {option for option in options if option.startswith("--")} <= known
    assert service["Restart"] == "on-failure"
    assert service["KillMode"] == "mixed"
    assert int(service["RestartPreventExitStatus"]) == USER_ERROR
    assert int(service["SuccessExitStatus"]) == INTERRUPTED
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here to verify the unit")
    # It asks whether the program is there.
    file = tmp_path / "cultivar.service"
    file.write_text(text.replace(program, sys.executable), encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "cultivar.service" not in done.stderr, done.stderr


@pytest.mark.cluster
def test_two_nodes_on_one_machine_carry_out_a_run(tmp_path) -> None:
    section = PAGE.partition("## Two nodes on one machine\n")[2].partition("\n## ")[0]
    (commands,) = re.findall(r"^```sh\n(.*?)^```$", section, re.M | re.S)
    with socket.socket() as first, socket.socket() as second:
        for named, unused in (("=6399", first), ("=6398", second)):
            unused.bind(("127.0.0.1", 0))
            assert commands.count(named) == 1
            commands = commands.replace(named, f"={unused.getsockname()[1]}")
    inherited = {n: v for n, v in os.environ.items() if not n.startswith(("RAY_", "PYTHON"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{inherited['PATH']}"
    done = subprocess.run(
        ["bash", "-ec", commands],
        cwd=tmp_path,
        env=inherited | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert (tmp_path / "runs/tried/champion.json").is_file(), done.stderr
    assert done.returncode == 0, done.stderr
