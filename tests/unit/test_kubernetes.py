"""Checks the Kubernetes manifests of ``deploy/``: their schemas, names, and what the server says of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from lessor_server.settings.access_file import load_access_rules
from lessor_server.settings.model import SettingsFile, load
from lessor_server.settings.sources import setting_paths
from tests.support.certificates import Authority

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
VERSIONS = ("1.29", "1.33")
"""The oldest and a recent version whose schemas the manifests fit."""
KUSTOMIZATION = "kustomization.yaml"
MANIFESTS = sorted(path for path in FOLDER.rglob("*.yaml") if path.name != KUSTOMIZATION)
VARIABLES = {f"LESSOR_{'_'.join(path).upper()}" for path in setting_paths(SettingsFile)}
WORKLOADS = ("sqlite/statefulset.yaml", "postgresql/deployment.yaml", "postgresql/migrate.yaml")
Manifest = dict[str, Any]


def read(name: str) -> Manifest:
    """Return a manifest, which is alone in its file."""
    [found] = list(yaml.safe_load_all((FOLDER / name).read_text()))
    return dict(found)


def pod(name: str) -> Manifest:
    """Return the pod of a workload."""
    return dict(read(name)["spec"]["template"]["spec"])


def container(name: str) -> Manifest:
    """Return the only container of a workload."""
    [found] = pod(name)["containers"]
    return dict(found)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_each_manifest_fits_the_schema(path: Path, version: str) -> None:
    kubernetes_validate.validate(read(str(path.relative_to(FOLDER))), version, strict=True)


def test_a_misspelt_field_does_not_fit_the_schema() -> None:
    """Otherwise the test above could not fail."""
    wrong = read("sqlite/statefulset.yaml")
    wrong["spec"]["replica"] = wrong["spec"].pop("replicas")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_each_kustomization_names_what_exists_and_no_manifest_is_forgotten() -> None:
    named = set()
    for path in FOLDER.rglob(KUSTOMIZATION):
        for name in yaml.safe_load(path.read_text())["resources"]:
            target = (path.parent / name).resolve()
            assert target.is_file() or (target / KUSTOMIZATION).is_file(), name
            named.add(target)
    # A Job is applied by hand before an upgrade.
    assert set(MANIFESTS) - named == {FOLDER / "postgresql" / "migrate.yaml"}


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_kustomize_builds_each_kind(kind: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    words = ("kubectl", "kustomize", str(FOLDER / kind))
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    assert {one["metadata"].get("namespace", "lessor") for one in built} == {"lessor"}
    assert {"Service", "NetworkPolicy", "PodDisruptionBudget", "ConfigMap"} <= {one["kind"] for one in built}


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_pod_is_restricted_and_gets_no_variables_of_services(name: str) -> None:
    """Source: Kubernetes, "Pod Security Standards", profile Restricted."""
    spec, own = pod(name), container(name)["securityContext"]
    assert spec["enableServiceLinks"] is False
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["allowPrivilegeEscalation"] is False
    assert own["readOnlyRootFilesystem"] is True
    assert own["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_variables_of_a_pod_are_settings(name: str) -> None:
    assert {one["name"] for one in container(name)["env"]} - VARIABLES == set()


@pytest.mark.parametrize("name", WORKLOADS)
def test_each_volume_is_mounted_and_each_path_is_below_a_volume(name: str) -> None:
    mounts = {one["name"]: one["mountPath"] for one in container(name)["volumeMounts"]}
    claims = [one["metadata"]["name"] for one in read(name)["spec"].get("volumeClaimTemplates", ())]
    assert mounts.keys() == {*claims, *(one["name"] for one in pod(name)["volumes"])}
    texts = [*(one["value"] for one in container(name)["env"]), *container(name)["args"]]
    texts += read("common/configmap.yaml")["data"]["lessor.toml"].split('"')
    paths = {path for text in texts for path in re.findall(r"(?<![\w/])/(?:etc|data)/[\w./-]+", text)}
    assert len(paths) > 3
    assert {path for path in paths if not path.startswith(tuple(mounts.values()))} == set()


@pytest.mark.parametrize("name", WORKLOADS)
def test_no_secret_is_open_to_all(name: str) -> None:
    """The server warns of a key that every user can read."""
    modes = [one["secret"]["defaultMode"] for one in pod(name)["volumes"] if "secret" in one]
    assert modes
    assert set(modes) == {0o440}


def test_labels_select_the_servers_and_ports_have_the_names_that_services_use() -> None:
    label = {"app.kubernetes.io/name": "lessor"}
    for name in WORKLOADS[:2]:
        assert read(name)["spec"]["selector"]["matchLabels"] == label
        assert read(name)["spec"]["template"]["metadata"]["labels"] == label
        ports = {one["name"]: one["containerPort"] for one in container(name)["ports"]}
        services = [read(f"common/{kind}.yaml")["spec"] for kind in ("service", "metricsservice")]
        assert [one["selector"] for one in services] == [label, label]
        served = {one["targetPort"]: one["port"] for service in services for one in service["ports"]}
        assert served == ports
    # The Job takes no calls.
    assert read(WORKLOADS[2])["spec"]["template"]["metadata"]["labels"] != label


def test_prometheus_sees_servers_that_are_not_ready() -> None:
    """Only then can the alert on them fire."""
    service = read("common/metricsservice.yaml")
    assert service["spec"]["publishNotReadyAddresses"] is True
    page = (FOLDER.parents[1] / "docs" / "deployment.md").read_text()
    assert f"names: [{service['metadata']['name']}.lessor.svc]" in page
    assert "publishNotReadyAddresses" not in read("common/service.yaml")["spec"]


def test_the_grace_of_a_pod_is_longer_than_the_drain_of_its_server(tmp_path: Path) -> None:
    settings = loaded(tmp_path)
    for name in WORKLOADS[:2]:
        assert pod(name)["terminationGracePeriodSeconds"] > settings.drain_grace.total_seconds() + 5


def loaded(folder: Path) -> Any:
    """Return what the server's own loader makes of the settings; only the paths of files are replaced."""
    data = read("common/configmap.yaml")["data"]
    authority = Authority(folder)
    pair = authority.sign("localhost")
    tls, config = folder / "tls", folder / "config"
    for place in (tls, config):
        place.mkdir()
    (tls / "tls.crt").write_bytes(pair.cert.read_bytes())
    (tls / "tls.key").write_bytes(pair.key.read_bytes())
    (config / "access.toml").write_text(data["access.toml"])
    text = data["lessor.toml"].replace("/etc/lessor", str(folder))
    file = config / "lessor.toml"
    file.write_text(text)
    for path in (*tls.iterdir(), *config.iterdir()):
        path.chmod(0o600)
    return load(file, {"LESSOR_DATA_DIR": str(folder / "data")})


def test_the_settings_of_the_config_map_are_valid(tmp_path: Path) -> None:
    settings = loaded(tmp_path)
    assert not settings.warnings
    assert not settings.exposed
    assert not settings.access.root_token
    ports = {one["name"]: one["containerPort"] for one in container(WORKLOADS[0])["ports"]}
    assert {one.address.port for one in settings.listen} == {ports["grpc"]}


def test_the_access_file_of_the_config_map_is_valid() -> None:
    rules = load_access_rules(read("common/configmap.yaml")["data"]["access.toml"], "access.toml")
    assert [one.name for one in rules.identities] == ["operator"]
