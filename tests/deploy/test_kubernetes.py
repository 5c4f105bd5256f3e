"""The manifests for Kubernetes: its schemas accept them, and they fit the server and the image."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy import kit
from penstock import __version__
from penstock.config import ServerConfig
from support.image import parse
from support.servers import SCRIPT

TRAFFIC = {"http": ServerConfig().http_port, "grpc": ServerConfig().port}
PORTS = {**TRAFFIC, "operations": ServerConfig().ops_port}


OLDEST = "1.27"
"""The release of Kubernetes whose probes over gRPC are stable."""


def validate(path: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    tool = kit.TOOLS / "kubernetes-validate"
    if not tool.exists():
        pytest.skip("kubernetes-validate is not here: make deploy-tools")
    return subprocess.run([tool, "--strict", *flags, path], capture_output=True, text=True, check=False)


FILES = sorted(path for path in kit.MANIFESTS.glob("*.yaml") if path.name != "kustomization.yaml")


def test_the_schemas_accept_them(tmp_path: Path) -> None:
    everything = tmp_path / "all.yaml"
    everything.write_text("\n---\n".join(path.read_text() for path in FILES))
    run = validate(everything)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_schemas_would_say_what_is_wrong(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    text = (kit.MANIFESTS / "deployment.yaml").read_text()
    wrong.write_text(text.replace("readOnlyRootFilesystem", "readOnlyRootFileSystem"))
    run = validate(wrong)
    assert run.returncode != 0
    assert "readOnlyRootFileSystem" in run.stdout + run.stderr


def test_kubectl_puts_them_together(tmp_path: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not here")
    command = ["kubectl", "kustomize", str(kit.MANIFESTS)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("\nkind: ") == len(list(kit.manifests()))
    assert f"image: penstock:{__version__}\n" in run.stdout
    whole = tmp_path / "whole.yaml"  # what a cluster would be given
    whole.write_text(run.stdout)
    for flags in ([], ["--kubernetes-version", OLDEST]):
        checked = validate(whole, *flags)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_it_runs_as_the_image_does() -> None:
    [user] = [each.value for each in parse((kit.ROOT / "Dockerfile").read_text()) if each.name == "USER"]
    context = kit.pod()["securityContext"]
    assert f"{context['runAsUser']}:{context['runAsGroup']}" == user
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert kit.container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert kit.pod()["automountServiceAccountToken"] is False


def test_it_is_killed_late_enough() -> None:
    environment = kit.variables(kit.container()["env"])
    assert kit.pod()["terminationGracePeriodSeconds"] >= kit.waits(environment) + kit.MARGIN_SECONDS


def test_ports_and_probes_are_the_servers() -> None:
    container = kit.container()
    assert {each["name"]: each["containerPort"] for each in container["ports"]} == PORTS
    assert container["startupProbe"]["grpc"] == {"port": PORTS["grpc"]}
    assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "operations"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "operations"}


def test_services_lead_to_the_pods() -> None:
    [deployment] = kit.of_kind("Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    services = {each["metadata"]["name"]: each["spec"] for each in kit.of_kind("Service")}
    for spec in services.values():
        assert spec["selector"].items() <= labels.items()
        ports = {each["targetPort"]: each["port"] for each in spec["ports"]}
        assert ports.items() <= TRAFFIC.items()  # operations are for the cluster, not for callers
    assert services["penstock-grpc"]["clusterIP"] == "None"
    [budget] = kit.of_kind("PodDisruptionBudget")
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_pods_leave_balancers_before_they_reject() -> None:
    probe = kit.container()["readinessProbe"]
    noticed = probe["periodSeconds"] * probe["failureThreshold"] + probe["timeoutSeconds"]
    environment = kit.variables(kit.container()["env"])
    assert noticed < float(environment["PENSTOCK_SERVER__LINGER_SECONDS"])


def test_what_is_written_has_a_volume() -> None:
    mounts = {each["name"]: each for each in kit.container()["volumeMounts"]}
    volumes = {each["name"]: each for each in kit.pod()["volumes"]}
    assert mounts.keys() == volumes.keys()
    assert mounts["models"]["readOnly"] is True
    text = (kit.ROOT / "Dockerfile").read_text()
    assert f"PENSTOCK_CACHE__FOLDER={mounts['cache']['mountPath']} " in text
    assert re.search(r"\bemptyDir\b", str(volumes["cache"]))


def test_the_settings_exist() -> None:
    environment = kit.variables(kit.container()["env"])
    run = subprocess.run([SCRIPT, "config"], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert [name for name in environment if name not in run.stdout] == []
