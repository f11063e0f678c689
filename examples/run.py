"""Runs examples against ``lessor dev``: ``python examples/run.py [NAME…]``; without names all of them.

An example whose tools are missing is not run: its line says what to install. The exit code is 1 if an example
fails or prints something else, and with ``--strict`` also if one is not run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from lessor.testing import run_dev_server

EXAMPLES: Final = Path(__file__).resolve().parent
ROOT: Final = EXAMPLES.parent
BUILD: Final = ROOT / "build" / "examples"
PROTOS: Final = sorted((ROOT / "protos").glob("lessor/v1/*.proto"))
SECONDS: Final = 300
EXPECTED: Final = re.compile(
    r"version \S+\nrole reader\nissued AKIA\w+\nrenewed for 3600 s\nrevoked GONE\nrefused NOT_?FOUND\n",
    re.IGNORECASE,
)
GOCODE: Final = Path(os.environ.get("LESSOR_GOCODE", "/usr/share/gocode"))
JARS: Final = Path(os.environ.get("LESSOR_JARS", "/usr/share/java"))
GO_PACKAGES: Final = (
    "golang-go golang-google-grpc-dev golang-github-golang-protobuf-1-5-dev "
    "protobuf-compiler protoc-gen-go-1-5 protoc-gen-go-grpc"
)
JAVA_PACKAGES: Final = (
    "default-jdk-headless libgrpc-java libprotobuf-java libnetty-java libgoogle-gson-java "
    "libperfmark-java libgeronimo-annotation-1.3-spec-java protobuf-compiler "
    "protobuf-compiler-grpc-java-plugin"
)
JAR_NAMES: Final = (
    *("grpc-*.jar", "protobuf*.jar", "netty*.jar", "gson*.jar", "guava*.jar", "failureaccess*.jar"),
    *("perfmark*.jar", "jctools*.jar", "geronimo-annotation*.jar", "jsr305*.jar", "opencensus*.jar"),
)


class Missing(Exception):
    """An example can't run here; the text says why."""


def run(*words: str | Path, environ: Mapping[str, str], cwd: Path = ROOT) -> str:
    """Return what a command prints; raises ``CalledProcessError``."""
    return subprocess.run(
        [*map(str, words)],
        cwd=cwd,
        env={**os.environ, **environ},
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        timeout=SECONDS,
    ).stdout


def need(packages: str, *programs: str) -> None:
    """Raise ``Missing`` if a program is not on the PATH."""
    absent = [name for name in programs if shutil.which(name) is None]
    if absent:
        raise Missing(f"no {', '.join(absent)} here; on Debian: apt install {packages}")


def fresh(name: str) -> Path:
    """Return an empty folder for what an example generates."""
    folder = BUILD / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def run_python(environ: Mapping[str, str]) -> str:
    """Run the Python example."""
    return run(sys.executable, EXAMPLES / "python" / "tutorial.py", environ=environ)


def run_shell(environ: Mapping[str, str]) -> str:
    """Run the shell example with this environment's ``lessor``."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return run("sh", EXAMPLES / "shell" / "tutorial.sh", environ={**environ, "PATH": path})


def run_node(environ: Mapping[str, str]) -> str:
    """Run the Node example; its packages are kept under ``build/`` for the next run."""
    need("nodejs npm", "node", "npm")
    folder, source = BUILD / "node", EXAMPLES / "node"
    wanted = (source / "package.json").read_text(encoding="utf-8")
    done = folder / "done"
    if not done.is_file() or done.read_text(encoding="utf-8") != wanted:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text(wanted, encoding="utf-8")
        try:
            run("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", environ={}, cwd=folder)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise Missing(f"the npm registry can't be reached: {error}") from None
        done.write_text(wanted, encoding="utf-8")
    return run("node", source / "tutorial.js", environ={**environ, "NODE_PATH": str(folder / "node_modules")})


def run_go(environ: Mapping[str, str]) -> str:
    """Build the Go example with Debian's packages, without modules, and run it."""
    need(GO_PACKAGES, "go", "protoc", "protoc-gen-go", "protoc-gen-go-grpc")
    if not (GOCODE / "src" / "google.golang.org" / "grpc").is_dir():
        raise Missing(f"no sources of grpc in {GOCODE}; on Debian: apt install {GO_PACKAGES}")
    folder = fresh("go")
    (folder / "src").mkdir()
    outputs = (f"--go_out={folder / 'src'}", f"--go-grpc_out={folder / 'src'}")
    run("protoc", f"-I{ROOT / 'protos'}", *outputs, *PROTOS, environ={})
    shutil.copytree(EXAMPLES / "go", folder / "src" / "tutorial")
    building = {"GOPATH": f"{folder}{os.pathsep}{GOCODE}", "GO111MODULE": "off", "GOFLAGS": ""}
    run("go", "build", "-o", folder / "tutorial", "tutorial", environ=building)
    return run(folder / "tutorial", environ=environ)


def run_java(environ: Mapping[str, str]) -> str:
    """Build the Java example with Debian's packages, and run it."""
    need(JAVA_PACKAGES, "javac", "java", "protoc", "grpc_java_plugin")
    if not (JARS / "grpc-netty.jar").exists():
        raise Missing(f"no grpc-netty.jar in {JARS}; on Debian: apt install {JAVA_PACKAGES}")
    folder = fresh("java")
    plugin = f"--plugin=protoc-gen-grpc-java={shutil.which('grpc_java_plugin')}"
    outputs = (f"--java_out={folder}", f"--grpc-java_out={folder}")
    run("protoc", f"-I{ROOT / 'protos'}", plugin, *outputs, *PROTOS, environ={})
    folders = dict.fromkeys((JARS, Path("/usr/share/java")))
    jars = os.pathsep.join(
        str(jar) for base in folders for name in JAR_NAMES for jar in sorted(base.glob(name))
    )
    sources = [*sorted(folder.rglob("*.java")), EXAMPLES / "java" / "Tutorial.java"]
    run("javac", "-nowarn", "-cp", jars, "-d", folder / "classes", *sources, environ={})
    return run("java", "-cp", f"{folder / 'classes'}{os.pathsep}{jars}", "Tutorial", environ=environ)


RUNNERS: Final[Mapping[str, Callable[[Mapping[str, str]], str]]] = {
    "python": run_python,
    "shell": run_shell,
    "node": run_node,
    "go": run_go,
    "java": run_java,
}


def check(name: str, environ: Mapping[str, str]) -> str:
    """Run one example; return ``ok`` or what is wrong. Raises ``Missing``."""
    try:
        printed = RUNNERS[name](environ)
    except subprocess.CalledProcessError as error:
        return f"{error}\n{error.stdout}"
    return "ok" if EXPECTED.fullmatch(printed) else f"it printed something else:\n{printed}"


def main(arguments: list[str]) -> int:
    """Run the named examples."""
    names = [one for one in arguments if not one.startswith("-")] or list(RUNNERS)
    strict, failed = "--strict" in arguments, False
    with run_dev_server() as server:
        environ = {**server.environ, "AWS_ENDPOINT_URL": server.aws_url, "LESSOR_REPOSITORY": str(ROOT)}
        for name in names:
            try:
                found = check(name, environ)
            except Missing as missing:
                found = f"not run: {missing}"
                failed |= strict
            else:
                failed |= found != "ok"
            sys.stdout.write(f"{name}: {found}\n")
            sys.stdout.flush()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
