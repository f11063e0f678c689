"""Compares decisions about paths with OpenBao's, for generated policies and paths."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest
from tests.support.openbao import OpenBao, openbao

from lessor_server.domain.access.acl import Acl, Capability, Policy, Rule, acl_of
from lessor_server.domain.access.path_pattern import violations
from lessor_server.domain.policy.template import identity_fields

SETS = 150
PATHS = [
    "/".join(segments) + end
    for length in (1, 2, 3)
    for segments in itertools.product(("a", "b", "ab"), repeat=length)
    for end in ("", "/")
]
FIXED = [
    [{"a/+/b": ["read"], "a/*": ["deny"], "a/a*": ["update"]}],
    [{"a/+": ["list"], "a/b": ["read"], "a/b/": ["delete"]}, {"a/+": ["deny"]}],
    [{"+": ["read"], "+/": ["list"], "+/+": ["update"], "*": ["create"]}],
    [{"a": ["list"]}, {"a/": ["read"]}, {"+/*": ["sudo", "read"]}],
    [{"a/b": ["read"], "a/*": ["list"]}, {"a/b": ["deny"], "a/*": ["update"]}, {"a/b": ["list"]}],
    [{"a/+/+": ["read"], "+/b/*": ["list"], "a/b/+": ["update"], "a/+/b*": ["delete"]}],
]

Policies = Sequence[Mapping[str, Sequence[str]]]


def pattern(rng: random.Random) -> str:
    """Return a pattern that is well-formed, often one that others resemble."""
    while True:
        segments = rng.choices(("a", "b", "ab", "+"), weights=(3, 3, 1, 3), k=rng.randint(1, 3))
        text = "/".join(segments) + rng.choice(("", "", "", "/", "*", "/*"))
        if not violations("", text):
            return text


def drawn(rng: random.Random) -> Policies:
    """Return one to three policies, of which several may have the same pattern."""
    words = [one.value for one in Capability if one is not Capability.DENY]

    def able() -> list[str]:
        return ["deny"] if rng.random() < 0.15 else rng.sample(words, rng.randint(1, 3))

    shared = [pattern(rng) for _ in range(4)]
    return [
        {rng.choice(shared) if rng.random() < 0.5 else pattern(rng): able() for _ in range(rng.randint(1, 6))}
        for _ in range(rng.randint(1, 3))
    ]


def acl(policies: Policies) -> Acl:
    """Return what the same policies allow in Lessor."""
    found = [
        Policy("p", tuple(Rule(text, frozenset(map(Capability, able))) for text, able in policy.items()))
        for policy in policies
    ]
    return acl_of(found, identity_fields("anyone", {}))


def listed(found: Acl, path: str) -> set[str]:
    """Return a path's capabilities in OpenBao's answer, which is always about a ``list``.

    If no pattern matches, OpenBao tries those with wildcards on the path without its last slash. Lessor tries
    exact patterns only: a rule such as ``aws/+`` says nothing about a list of ``aws/roles/``.
    """
    shorter = path.removesuffix("/")
    exact = [grant for grant in (found.exact.get(path), found.exact.get(shorter)) if grant is not None]
    grants = [found.find(path, Capability.READ), found.find(shorter, Capability.READ)]
    grant = next((one for one in (*exact, *grants) if one is not None), None)
    if grant is None or grant.denies:
        return {"deny"}
    return {one.value for one in grant.capabilities}


@pytest.fixture(name="bao")
async def running() -> AsyncIterator[OpenBao]:
    """Run OpenBao."""
    async with openbao() as one:
        yield one


def test_a_list_is_decided_as_in_openbao_except_by_wildcards_without_the_last_slash() -> None:
    """Neither pattern with a wildcard matches the path as it is, so Lessor's decision is the stricter one."""
    ours = acl([{"a/+": ["list"], "b": ["list"], "b/": ["read"], "c": ["list"]}])
    assert listed(ours, "a/b/") == {"list"}
    assert ours.find("a/b/", Capability.LIST) is None
    for path in ("b/", "c/"):
        grant = ours.find(path, Capability.LIST)
        assert grant is not None
        assert {one.value for one in grant.capabilities} == listed(ours, path)


async def test_every_path_has_the_capabilities_that_openbao_gives_it(bao: OpenBao) -> None:
    rng = random.Random(16)
    for policies in [*FIXED, *(drawn(rng) for _ in range(SETS))]:
        paths = sorted(rng.sample(PATHS, 40))
        ours = acl(policies)
        theirs = await bao.capabilities(policies, paths)
        assert {path: theirs[path] for path in paths if theirs[path] != listed(ours, path)} == {}, policies
