"""Asks IAM's simulator about grants, many resources at a time; results by action and resource."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from itertools import product
from typing import Protocol, TypeVar

from lessor_server.domain.aws.calls import Call
from lessor_server.domain.aws.least_policy import Grant
from lessor_server.domain.aws.read_calls import SimulatePrincipalPolicy
from lessor_server.domain.errors.base import LessorError
from lessor_server.engine.aws.caller import Done, Outcome

T = TypeVar("T")

RESOURCES_A_CALL = 50
"""How many resources one call is about; the IAM API Reference bounds the answer's pages, not the question."""


class Verdict(IntEnum):
    """Whether IAM's simulator allows a root an action; of several results the greatest counts."""

    ALLOWED = 0
    UNKNOWN = 1
    DENIED = 2


@dataclass(slots=True)
class SimulationResult:
    """Hold the verdict on each action, the denied ones by resource, and why some are not known.

    An action that several grants need has the verdict of the first of them, the worst on its resources.
    """

    verdicts: dict[str, Verdict] = field(default_factory=dict)
    denied: dict[str, list[str]] = field(default_factory=dict)
    failure: LessorError | None = None


class Ask(Protocol):
    """Sends a call and gives its outcome."""

    def __call__(self, call: Call[T]) -> Awaitable[Outcome[T]]:
        """Send one call."""
        ...


async def simulate(ask: Ask, principal: str, needed: Sequence[Grant]) -> SimulationResult:
    """Ask whether ``principal`` is allowed what is ``needed``; it is for ``ask`` to bound calls and time."""
    questions = [
        (grant, SimulatePrincipalPolicy(principal, grant.actions, resources))
        for grant in needed
        for resources in _parts(grant.resources)
    ]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_answer(ask, call)) for _, call in questions]
    found, first = SimulationResult(), dict[str, Grant]()
    for (grant, call), task in zip(questions, tasks, strict=True):
        answer, failure = task.result()
        found.failure = found.failure or failure
        for resource, action in product(call.resource_arns, grant.actions):
            verdict = answer.get((action, resource), Verdict.UNKNOWN)
            if first.setdefault(action, grant) is grant:
                found.verdicts[action] = max(verdict, found.verdicts.get(action, Verdict.ALLOWED))
            if verdict is Verdict.DENIED:
                found.denied.setdefault(resource, []).append(action)
    return found


def _parts(resources: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    return (resources[at : at + RESOURCES_A_CALL] for at in range(0, len(resources), RESOURCES_A_CALL))


async def _answer(
    ask: Ask, call: SimulatePrincipalPolicy
) -> tuple[dict[tuple[str, str], Verdict], LessorError | None]:
    """Return the verdicts by action and resource of all pages that came, and why no more did."""
    found: dict[tuple[str, str], Verdict] = {}
    while True:
        outcome = await ask(call)
        if not isinstance(outcome, Done):
            return found, outcome
        for action, named, said in outcome.value.verdicts:
            # Where only one is asked about, the answer is about that one, however AWS spells it.
            resource = named if len(call.resource_arns) > 1 else call.resource_arns[0]
            verdict = Verdict.ALLOWED if said == "allowed" else Verdict.DENIED
            found[action, resource] = max(verdict, found.get((action, resource), verdict))
        if not outcome.value.marker:
            return found, None
        call = replace(call, marker=outcome.value.marker)
