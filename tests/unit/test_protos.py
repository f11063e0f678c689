"""Checks that old compilers accept the protos, and that these name packages for each language."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support.installed import python_with

ROOT: Final = Path(__file__).resolve().parents[2]
PROTOS: Final = sorted((ROOT / "protos").glob("lessor/v1/*.proto"))
OLDEST_TOOLS: Final = {(3, 11): "1.49.1", (3, 12): "1.59.0", (3, 13): "1.66.2"}
"""The oldest grpcio-tools on PyPI with a wheel for each Python, yanked ones left out."""


def options(path: Path) -> dict[str, str]:
    """Return the file options of a proto."""
    text = path.read_text(encoding="utf-8")
    return {
        name: value.strip('"') for name, value in re.findall(r"^option (\w+) = (.+);$", text, re.MULTILINE)
    }


@pytest.fixture(scope="module")
def oldest_tools() -> Path:
    """Return a Python that has the oldest grpcio-tools; it is kept under build/ for the next run."""
    version = OLDEST_TOOLS[sys.version_info[:2]]
    # This version reads its files by pkg_resources, which setuptools 67.5 and later call deprecated.
    packages = (f"grpcio-tools=={version}", "setuptools<67.5")
    name = f"grpcio-tools-{version}-py{sys.version_info[0]}.{sys.version_info[1]}"
    return python_with(name, *packages)


def compile_with(command: list[str], out: Path, *plugins: str) -> None:
    """Compile all protos; the compiler's own words are the failure's."""
    outputs = [f"--{plugin}_out={out}" for plugin in ("python", *plugins)]
    words = [*command, f"--proto_path={ROOT / 'protos'}", *outputs, *map(str, PROTOS)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list((out / "lessor" / "v1").glob("*_pb2.py"))) == len(PROTOS)


@pytest.mark.clients
@pytest.mark.slow
def test_the_oldest_grpcio_tools_compile_the_protos(oldest_tools: Path, tmp_path: Path) -> None:
    compile_with([str(oldest_tools), "-m", "grpc_tools.protoc"], tmp_path, "grpc_python")


@pytest.mark.skipif(shutil.which("protoc") is None, reason="no protoc on the PATH; Debian's is 3.21")
def test_the_protoc_of_the_system_compiles_the_protos(tmp_path: Path) -> None:
    compile_with(["protoc"], tmp_path)


def test_each_proto_names_the_packages_of_other_languages() -> None:
    for path in PROTOS:
        assert options(path) == {
            "csharp_namespace": "Lessor.V1",
            "go_package": "github.com/lessor-dev/lessor/gen/go/lessor/v1;lessorv1",
            "java_multiple_files": "true",
            "java_outer_classname": f"{path.stem.title()}Proto",
            "java_package": "dev.lessor.v1",
        }


def test_no_java_class_is_named_as_one_of_java_lang() -> None:
    """A class System, String or Object would shadow Java's own."""
    names = {options(path)["java_outer_classname"] for path in PROTOS}
    for path in PROTOS:
        names |= set(
            re.findall(r"^(?:message|enum|service) (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        )
    assert names.isdisjoint({"System", "String", "Object", "Class", "Process", "Record", "Runtime", "Thread"})


def test_no_option_is_used_that_protoc_3_21_does_not_know() -> None:
    """Release 3.21 refuses unknown field options; ``debug_redact`` came with 22.0."""
    for path in PROTOS:
        assert set(re.findall(r"\[(\w+) =", path.read_text(encoding="utf-8"))) <= {"deprecated", "json_name"}
