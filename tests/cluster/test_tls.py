"""A run on a cluster that uses TLS, with the commands of the documentation."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from cluster_hosts import HEAD, PORT, Hosts, NotPermittedError
from cluster_runs import BIRTH_S, Cluster, Run

PAGE = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text(encoding="utf-8")


@pytest.fixture
def commands() -> tuple[str, str]:
    """Return what makes certificates, and what is set on every machine, as the page has it."""
    section = PAGE.partition("### TLS\n")[2].partition("\n## ")[0]
    make, export = re.findall(r"^```sh\n(.*?)^```$", section, re.M | re.S)
    return make, export


@pytest.mark.cluster
def test_a_run_through_tls_gives_the_same_and_none_goes_past_it(
    commands, system_config, serial, tmp_path
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("certificates are made by openssl, not found here")
    make, export = commands
    subprocess.run(["sh", "-ec", make], cwd=tmp_path, check=True, capture_output=True)
    try:
        with Hosts(BIRTH_S) as hosts:
            given = dict(re.findall(r"(RAY_\w+)=(\S+)", export))
            tls = {name: value.replace("$HOME", str(hosts.disk)) for name, value in given.items()}
            hosts.environment.update(tls)
            for name in (HEAD, "worker1"):
                hosts.boot(name)
                folder = hosts.outside(name) / "tls"
                folder.mkdir()
                shutil.copy(tmp_path / "tls" / "ca.crt", folder)
                for kind in ("crt", "key"):
                    own = tmp_path / "tls" / f"{hosts.address(name)}.{kind}"
                    shutil.copy(own, folder / f"node.{kind}")
            Cluster(hosts, system_config).start(HEAD, "worker1")
            run = Run(hosts, HEAD)
            assert run.end() == serial(run)
            assert run.nodes("worker1")
            del hosts.environment["RAY_USE_TLS"]
            address = f"{hosts.address(HEAD)}:{PORT}"
            refusal = f"what listens at {address} does not answer like a Ray cluster: "
            with pytest.raises(RuntimeError, match=refusal + ".* set RAY_USE_TLS=1 if the cluster"):
                hosts.run(HEAD, ["cultivar", "doctor", "--address", address])
    except NotPermittedError as error:
        pytest.skip(str(error))
