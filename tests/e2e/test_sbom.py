"""Checks the list of what the server runs on that `make sbom` writes."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.support.lock_files import ROOT, locked

pytestmark = [pytest.mark.slow, pytest.mark.fire]


def test_the_sbom_names_every_package_of_the_server_with_its_version_and_license() -> None:
    """The tool itself checks the file against CycloneDX's schema."""
    subprocess.run(["make", "sbom"], cwd=ROOT, check=True, timeout=300)
    sbom = json.loads((ROOT / "build" / "sbom.json").read_text(encoding="utf-8"))
    assert sbom["bomFormat"] == "CycloneDX"
    assert sbom["metadata"]["component"]["name"] == "lessor"
    expected = {f"pkg:pypi/{pin.name}@{pin.version}" for pin in locked("server") if pin.is_for_this_machine}
    assert {one["purl"] for one in sbom["components"]} == expected
    assert [one["name"] for one in sbom["components"] if not one.get("licenses")] == []
