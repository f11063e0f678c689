"""Writes the files that are made from the code: ``python docs/generate.py``; a test keeps them current.

These are pages, and the reasons that the Python client knows.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import lessor_server
from lessor.service_config import service_config
from lessor_server.adapters.metrics.families import COUNTER, FAMILIES
from lessor_server.domain.errors.base import LessorError
from lessor_server.domain.lease import STEPS, State
from lessor_server.domain.rotation import STEPS as ROTATION
from lessor_server.http_edge.vault.face import TABLE
from lessor_server.services.permissions import PERMISSIONS, Need
from lessor_server.services.status import code_of

DOCS = Path(__file__).parent
BEGIN = "<!-- begin of the generated table -->"
END = "<!-- end of the generated table -->"
CONDITIONS = {
    ("ConfigService.DisableMount", 1): "with `force`",
    ("ConfigService.SetRoot", 0): (
        "if it sets an endpoint, an `identity_token_file` or the server's own credentials"
    ),
    ("RoleService.DeleteRole", 1): "with `revoke_leases`",
    ("LeaseService.AbandonLeases", 0): "for one lease",
    ("LeaseService.AbandonLeases", 1): "for a prefix",
    ("LeaseService.Reconcile", 0): "without `apply`",
    ("LeaseService.Reconcile", 1): "with `apply`",
}
"""When a need counts, by its method and its index."""


def pages() -> dict[str, str]:
    """Return every generated file by its path from this folder."""
    return {
        "../client/lessor/reasons.py": reason_names(),
        "access.md": access((DOCS / "access.md").read_text(encoding="utf-8")),
        "metrics.md": metrics((DOCS / "metrics.md").read_text(encoding="utf-8")),
        "reasons.md": reasons(),
        "service_config.json": f"{service_config()}\n",
        "states.md": states(),
        "vault.md": vault((DOCS / "vault.md").read_text(encoding="utf-8")),
    }


def access(page: str) -> str:
    """Return the page about access with its table of paths."""
    rows = [row for method, needs in PERMISSIONS.items() for row in _needs(method, needs)]
    head = ["| RPC | path | capabilities |", "| --- | --- | --- |"]
    return _put_table(page, [*head, *(f"| {' | '.join(row)} |" for row in rows)])


def metrics(page: str) -> str:
    """Return the page about metrics with its table of families."""
    head = ["| family | type | labels | meaning |", "| --- | --- | --- | --- |"]
    rows = []
    for one in FAMILIES:
        name = f"{one.name}_total" if one.kind == COUNTER else one.name
        labels = ", ".join(f"`{label}`" for label in one.labels)
        rows.append(f"| `{name}` | {one.kind} | {labels} | {one.help} |")
    return _put_table(page, [*head, *rows])


def vault(page: str) -> str:
    """Return the page about Vault's API with its table of paths."""
    head = ["| path | methods | what it is | calls |", "| --- | --- | --- | --- |"]
    rows = []
    for route in TABLE.routes:
        methods = ", ".join(verb.value for verb in route.operations)
        rpcs = dict.fromkeys(rpc.partition(".")[2] for one in route.operations.values() for rpc in one.rpcs)
        calls = ", ".join(f"`{rpc}`" for rpc in rpcs)
        rows.append(f"| `{route.pattern}` | {methods} | {route.help} | {calls} |")
    return _put_table(page, [*head, *rows])


def _put_table(page: str, table: list[str]) -> str:
    """Return a page with its generated table."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    return "\n".join([before + begin, "", *table, "", end + after])


def _needs(method: str, needs: tuple[Need, ...]) -> list[tuple[str, str, str]]:
    """Return the rows of one method."""
    name = f"`{method.partition('.')[2]}`"
    if not needs:
        return [(name, "", "any identity")]
    return [
        (name, f"`{_path(need)}`", _capabilities(method, index, need)) for index, need in enumerate(needs)
    ]


def _path(need: Need) -> str:
    """Return a path with the short names of its placeholders."""
    names = {"role.name": "role", "static_role.name": "static role", "lease_id": "lease id"}
    path = need.path
    for field, short in names.items():
        path = path.replace(f"{{{field}}}", f"<{short}>")
    return path.replace("{", "<").replace("}", ">")


def _capabilities(method: str, index: int, need: Need) -> str:
    """Return the capabilities, and when they are needed; fails for a condition without a text."""
    text = " and ".join(one.value for one in need.capabilities)
    if need.instead is not None and method.startswith("RoleService.Check"):
        text = f"{text} or {need.instead.value}"
    elif need.instead is not None:
        text = f"{text}; with {need.instead.value} alone the write inserts, or fails with `ALREADY_EXISTS`"
    if need.for_others:
        text = f"{text}; own leases without it"
    if need.when is not Need(need.path, need.capabilities).when:
        text = f"{text} {CONDITIONS[method, index]}"
    return text


def reasons() -> str:
    """Return the page of all reasons a caller can meet."""
    kinds = sorted(_errors(), key=lambda kind: kind.reason)
    parts = [
        (
            f"## {one.reason}",
            "",
            f"`{code_of(one.kind).name}`: {_when(one)}",
            "",
            f"**What to do:** {one.fix}.",
            "",
        )
        for one in kinds
    ]
    return "\n".join(
        [
            "# Reasons",
            "",
            'Every error has `ErrorInfo{domain: "lessor", reason}`, and `Help` with a link to its place.',
            "This page is made from the error classes by `python docs/generate.py`.",
            *(line for part in parts for line in part),
            "",
        ]
    )


def reason_names() -> str:
    """Return the module with the reasons that the Python client knows."""
    names = sorted({kind.reason for kind in _errors()})
    return "\n".join(
        [
            '"""The reasons of errors that this version knows: made by ``python docs/generate.py``."""',
            "",
            "from __future__ import annotations",
            "",
            "from enum import StrEnum",
            "",
            "",
            "class Reason(StrEnum):",
            '    """Why a call failed; ``docs/reasons.md`` says when each is used, and what to do."""',
            "",
            '    UNKNOWN = "UNKNOWN"',
            '    """A reason of a newer server, or of no Lessor server; ``reason_name`` is its text."""',
            *(f'    {name} = "{name}"' for name in names),
            "",
        ]
    )


def states() -> str:
    """Return the page of the states of a lease and the steps between them."""
    steps = STEPS.items()
    rows = [f"| {state.value} | {step.value} | {after.value} |" for (state, step), after in steps]
    return "\n".join(
        [
            "# The states of a lease",
            "",
            "Made from `domain/lease.py` by `python docs/generate.py`. What is not here cannot happen.",
            "",
            "```mermaid",
            "stateDiagram-v2",
            f"    [*] --> {State.INTENT.value}: begin",
            *(f"    {state.value} --> {after.value}: {step.value}" for (state, step), after in steps),
            "```",
            "",
            "| state | step | state after it |",
            "| --- | --- | --- |",
            *rows,
            "",
            *_rotations(),
            "",
        ]
    )


def _rotations() -> list[str]:
    """Return the lines about the phases of a rotation and the steps between them."""
    steps = [(source, step, after) for step, (source, targets) in ROTATION.items() for after in targets]
    return [
        "## The phases of a rotation",
        "",
        "Made from `domain/rotation.py`.",
        "",
        "```mermaid",
        "stateDiagram-v2",
        *(f"    {source.value} --> {after.value}: {step.value}" for source, step, after in steps),
        "```",
        "",
        "| phase | step | phase after it |",
        "| --- | --- | --- |",
        *(f"| {source.value} | {step.value} | {after.value} |" for source, step, after in steps),
    ]


def _errors() -> set[type[LessorError]]:
    """Return every class of error that can reach a caller, wherever it is defined."""
    for module in pkgutil.walk_packages(lessor_server.__path__, "lessor_server."):
        if ".commands" not in module.name:
            importlib.import_module(module.name)
    found: set[type[LessorError]] = set()
    waiting = [LessorError]
    while waiting:
        kind = waiting.pop()
        found.add(kind)
        waiting += kind.__subclasses__()
    served = {kind for kind in found if ".commands" not in kind.__module__ and kind is not LessorError}
    return {kind for kind in served if "reason" in vars(kind)}


def _when(kind: type[LessorError]) -> str:
    return " ".join((kind.__doc__ or "").split("\n\n")[0].split())


if __name__ == "__main__":
    for name, text in pages().items():
        (DOCS / name).write_text(text)
