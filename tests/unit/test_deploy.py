"""Checks the unit, the compose file, the alerts and the dashboard of ``deploy/``."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from lessor_server.adapters.aws.error_codes import _CODES, UNREADABLE
from lessor_server.adapters.metrics.families import FAMILIES, HOLDS
from lessor_server.adapters.metrics.recorder import Recorder
from lessor_server.commands.cli_errors import WRONG_SETTINGS
from lessor_server.engine.meter import OK, OUTCOMES
from lessor_server.settings.model import SettingsFile
from lessor_server.settings.sources import setting_paths

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = ("lessor.service", "lessor-check.service")
ALERTS = DEPLOY / "prometheus" / "alerts.yaml"
DASHBOARD = DEPLOY / "grafana" / "lessor.json"
MAX_EXPOSURE = 20
"""In tenths; systemd calls less than 2.0 "OK", the best of its words for a service of a network."""
VARIABLES = {f"LESSOR_{'_'.join(path).upper()}": path for path in setting_paths(SettingsFile)}
METRIC = re.compile(r"\b(?:lessor|grpc_server)_[a-z_]+\b")
RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def tool(name: str) -> str:
    """Return the path of a program, or skip the test."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)


def directives(unit: str) -> list[tuple[str, str]]:
    """Return the directives of a unit in their order."""
    text = (DEPLOY / "systemd" / unit).read_text()
    lines = [line for line in text.splitlines() if "=" in line and not line.startswith("#")]
    return [(name, value) for name, _, value in (line.partition("=") for line in lines)]


# --- systemd --------------------------------------------------------------------------------------------


@pytest.fixture(name="unit", params=UNITS)
def installed_unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a unit with a program that exists: systemd checks that."""
    path = tmp_path / request.param
    text = (DEPLOY / "systemd" / request.param).read_text()
    path.write_text(text.replace("/opt/lessor/bin/lessor", sys.executable))
    return path


def test_systemd_accepts_the_units(unit: Path) -> None:
    done = run(tool("systemd-analyze"), "verify", str(unit))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_systemd_finds_a_misspelt_directive(unit: Path) -> None:
    """Otherwise the test above could not fail."""
    unit.write_text(unit.read_text().replace("NoNewPrivileges=", "NoNewPrivilege="))
    assert "NoNewPrivilege" in run(tool("systemd-analyze"), "verify", str(unit)).stderr


def test_systemd_finds_little_exposed(unit: Path) -> None:
    options = ("security", "--offline=yes", f"--threshold={MAX_EXPOSURE}")
    done = run(tool("systemd-analyze"), *options, str(unit))
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.parametrize("unit", UNITS)
def test_the_variables_of_a_unit_are_settings(unit: str) -> None:
    names = [value.partition("=")[0] for name, value in directives(unit) if name == "Environment"]
    assert len(names) > 3
    assert set(names) <= VARIABLES.keys()


@pytest.mark.parametrize("unit", UNITS)
def test_each_credential_that_a_unit_loads_is_used(unit: str) -> None:
    loaded = {value.partition(":")[0] for name, value in directives(unit) if name == "LoadCredential"}
    used = {name for _, value in directives(unit) for name in re.findall(r"%d/([\w-]+)", value)}
    assert loaded == used != set()


def test_the_check_has_the_user_the_files_and_the_sandbox_of_the_server() -> None:
    """Otherwise it would check something else."""
    own = {"Description", "Type", "ExecStart", "ExecReload", "Restart", "RestartSec", "User", "WantedBy"}
    own |= {"TimeoutStartSec", "TimeoutStopSec", "RestartPreventExitStatus"}
    server, check = ({one for one in directives(unit) if one[0] not in own} for unit in UNITS)
    assert check == server
    started = [dict(directives(unit))["ExecStart"] for unit in UNITS]
    assert started[1] == f"{started[0]} --check --deep"
    # systemd names a dynamic user like the unit.
    assert ("User", UNITS[0].removesuffix(".service")) in directives(UNITS[1])


def test_wrong_settings_end_the_unit_instead_of_a_loop_of_starts() -> None:
    assert ("RestartPreventExitStatus", str(WRONG_SETTINGS)) in directives("lessor.service")


# --- compose --------------------------------------------------------------------------------------------


def compose() -> dict[str, Any]:
    """Return the compose file, its anchors resolved."""
    return dict(yaml.safe_load((DEPLOY / "compose.yaml").read_text()))


def services() -> dict[str, dict[str, Any]]:
    """Return the services of the compose file that run Lessor."""
    return {name: one for name, one in compose()["services"].items() if name != "postgres"}


def test_the_variables_of_the_compose_file_are_settings() -> None:
    assert len(services()) == 4
    for service in services().values():
        assert service["environment"].keys() - VARIABLES.keys() == set()


def test_each_secret_of_the_compose_file_is_mounted_where_it_is_read() -> None:
    for service in services().values():
        named = set(re.findall(r"/run/secrets/([\w-]+)", str(service["environment"])))
        assert named == set(service["secrets"]) <= compose()["secrets"].keys()


def test_the_servers_of_the_compose_file_are_equal_but_for_their_ports() -> None:
    servers = [one for name, one in services().items() if name != "migrate"]
    assert len({json.dumps({**one, "ports": []}, sort_keys=True) for one in servers}) == 1
    ports = [port for one in servers for port in one["ports"]]
    assert len(set(ports)) == len(ports)
    assert all(port.startswith("127.0.0.1:") for port in ports)


# --- alerts and dashboard -------------------------------------------------------------------------------


def test_promtool_accepts_the_alerts() -> None:
    done = run(tool("promtool"), "check", "rules", str(ALERTS))
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_for_its_cause_and_none_in_calm_weather() -> None:
    done = run(tool("promtool"), "test", "rules", str(ALERTS.with_name("alerts_test.yaml")))
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_tests() -> None:
    tests = yaml.safe_load(ALERTS.with_name("alerts_test.yaml").read_text())["tests"]
    *firing, calm = tests
    names = {rule["alert"] for rule in RULES}
    assert {test["name"] for test in firing} == names
    assert {one["alertname"] for one in calm["alert_rule_test"]} == names
    assert all(test["alert_rule_test"][-1]["exp_alerts"] for test in firing)


def test_each_alert_leads_to_a_heading_of_the_page_for_on_call() -> None:
    titles = re.findall(r"^## (\w+)$", (ROOT / "docs" / "on-call.md").read_text(), re.MULTILINE)
    assert [rule["alert"] for rule in RULES] == titles
    for rule in RULES:
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert (page.rpartition("/")[2], anchor) == ("on-call.md", rule["alert"].lower())


def test_each_metric_of_the_alerts_and_the_dashboard_exists() -> None:
    endings = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
    known = {f"{one.name}{end}" for one in FAMILIES for end in endings[one.kind]}
    texts = [rule["expr"] for rule in RULES] + expressions()
    used = {name for text in texts for name in METRIC.findall(text)}
    assert len(used) > 20
    assert used <= known
    labels = {label for one in FAMILIES for label in one.labels} | {"instance", "job", "le"}
    named = {name for text in texts for name in re.findall(r"(\w+)(?:=|!=|=~|!~)\"", text)}
    assert named <= labels


def test_the_values_of_labels_in_the_alerts_are_those_of_the_server() -> None:
    """A label without such a value is an alert that never fires."""
    texts = [rule["expr"] for rule in RULES]
    named = {
        (label, value)
        for text in texts
        for label, found in re.findall(r'(\w+)(?:=|!=|=~|!~)"([^"]*)"', text)
        for value in found.split("|")
    }
    recorder = Recorder(float)
    seen = [recorder._bounded_code(code) for code in ("", "EndpointConnectionError", UNREADABLE, *_CODES)]
    known = {
        "code": {OK, *seen, "incompletesignature"},
        "reason": set(HOLDS),
        "outcome": set(OUTCOMES),
        "about": {"files", "replicas", "unreadable_rows", "tampered_rows"},
        "action": {"getcalleridentity"},
        "grpc_code": {code.name for code in grpc.StatusCode},
        "job": {"lessor"},
    }
    assert [(label, value) for label, value in named if value not in known[label]] == []


def expressions() -> list[str]:
    """Return the queries of the dashboard."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def test_the_queries_of_the_dashboard_are_valid(tmp_path: Path) -> None:
    """They are checked as rules, with an interval in place of Grafana's variable."""
    rules = [
        {
            "record": f"dashboard:{number}",
            "expr": text.replace("$__rate_interval", "5m").replace("$job", ".*"),
        }
        for number, text in enumerate(expressions())
    ]
    assert len(rules) > 20
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = run(tool("promtool"), "check", "rules", "--lint=none", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_can_be_imported_anywhere() -> None:
    """Its data source is a variable, ids are unique, and no two panels overlap."""
    board = json.loads(DASHBOARD.read_text())
    variables = {one["name"]: one["type"] for one in board["templating"]["list"]}
    assert variables["datasource"] == "datasource"
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    drawn = [panel for panel in panels if panel["type"] != "row"]
    assert {panel["datasource"]["uid"] for panel in drawn} == {"${datasource}"}
    assert all(panel["description"] for panel in drawn)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
