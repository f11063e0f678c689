"""Makes the Python stubs of ``protos/lessor/v1`` into ``client/lessor/v1``.

Runs as hatch's build hook (wheel, sdist and editable install) and as ``python protos/build.py``.
Each ``NAME.proto`` gives ``NAME_pb2.py``, ``NAME_pb2_grpc.py`` and a ``.pyi`` beside both. They are
never committed. With this folder as include root the made code says ``from lessor.v1 import …``.
``protos/methods.py`` adds the methods of the clients.
"""

from __future__ import annotations

import os
import runpy
import shutil
import sys
import tempfile
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = Path("lessor") / "v1"
REDACTION = """
from lessor import redaction as _redaction
_redaction.redact(DESCRIPTOR)
"""
DESCRIPTORS = "descriptors"
METHODS = "methods.py"
PLUGINS = ("protoc-gen-mypy", "protoc-gen-mypy_grpc")


class BuildHook(BuildHookInterface):  # type: ignore[type-arg]  # its config type is hatchling's own matter
    """Makes the stubs before hatchling collects files."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Make the stubs; hatchling calls it before each build."""
        make(Path(self.root))


def make(root: Path) -> list[Path]:
    """Make all stubs of the checkout at ``root`` and return them, sorted.

    Raises:
        SystemExit: there is no .proto, a plugin is missing, or protoc refused.
    """
    include = root / "protos"
    protos = sorted((include / PACKAGE).glob("*.proto"))
    if not protos:
        raise SystemExit(f"no .proto in {include / PACKAGE}")
    target = root / "client" / PACKAGE
    with tempfile.TemporaryDirectory() as made:
        _protoc(include, protos, Path(made))
        _write_methods(include, Path(made))
        fresh = sorted((Path(made) / PACKAGE).iterdir())
        for stub in fresh:
            if stub.name.endswith("_pb2.py"):
                stub.write_text(stub.read_text(encoding="utf-8") + REDACTION, encoding="utf-8")
        for old in set(target.glob("*_pb2*")) - {target / stub.name for stub in fresh}:
            old.unlink()
        return [_place(stub, target / stub.name) for stub in fresh]


def _write_methods(include: Path, made: Path) -> None:
    """Write the methods of the clients beside the stubs."""
    found = FileDescriptorSet.FromString((made / DESCRIPTORS).read_bytes())
    # Hatch runs this file outside of any package, so its neighbor can't be imported.
    render = runpy.run_path(str(include / METHODS), run_name="methods")["render"]
    for name, text in render(found, "lessor.v1").items():
        (made / PACKAGE / name).write_text(text, encoding="utf-8")


def _place(stub: Path, target: Path) -> Path:
    """Put ``stub`` at ``target`` in one step, so that an import never sees half a file."""
    half = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copyfile(stub, half)
    return half.replace(target)


def _protoc(include: Path, protos: list[Path], out: Path) -> None:
    """Run protoc over ``protos`` into ``out``."""
    # Well-known types come with grpcio-tools, google.rpc and google.api with googleapis-common-protos.
    includes = [include, files("grpc_tools") / "_proto", _googleapis()]
    status = protoc.main(
        [
            "protoc",
            *(f"--proto_path={path}" for path in includes),
            *(f"--plugin={name}={_plugin(name)}" for name in PLUGINS),
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out=quiet:{out}",
            f"--mypy_grpc_out=quiet:{out}",
            f"--descriptor_set_out={out / DESCRIPTORS}",
            "--include_source_info",
            *map(str, protos),
        ]
    )
    if status != 0:
        raise SystemExit(f"protoc ended with status {status}")


def _googleapis() -> Path:
    """Return the folder that holds ``google/rpc/status.proto`` and its like."""
    spec = find_spec("google.rpc")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("google/rpc not found: install googleapis-common-protos")
    return Path(spec.submodule_search_locations[0]).parent.parent


def _plugin(name: str) -> str:
    """Find a protoc plugin beside this interpreter or on the PATH of the build's environment."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which(name, path=os.pathsep.join([beside, os.environ.get("PATH", "")]))
    if found is None:
        raise SystemExit(f"{name} not found: install mypy-protobuf beside {sys.executable}")
    return found


def main() -> None:
    """Make the stubs of the checkout that this file is in."""
    made = make(Path(__file__).resolve().parent.parent)
    sys.stdout.write(f"{len(made)} files in {made[0].parent}\n")


if __name__ == "__main__":
    main()
