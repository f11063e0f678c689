"""Rows of issues: rates, CPU and latency beside OpenBao, the cost of audit and rules, where the CPU goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from statistics import median

from bench import h2load
from bench.backend import IAM, RABBITMQ
from bench.children import child
from bench.figures import Figure
from bench.lessor import BARE, CALLER_TOKEN, PLAIN, RICH, RULES, Lessor, access_file
from bench.server import NO_SDK, NO_STORE, REAL
from bench.turns import Take, Turn, Turns, by_cpu, by_p50, by_p99, by_rate, take_turns, timed
from bench.world import Size, World, asking, asking_each

CLIENTS = (1, 8, 32)
MAX_CLIENTS = CLIENTS[-1]
LESSOR, OPENBAO, THREE_CALLS, EMPTY = "Lessor", "OpenBao", "Lessor, 3 calls", "an empty RPC"
OVER_HTTP, OVER_GRPC = "HTTP", "gRPC"
AWS_SECONDS = 0.05
"""The time that AWS takes over each call where a full role is issued."""


def rates(world: World, size: Size) -> Iterator[Figure]:
    """Measure credentials a second and the CPU of each, small stores, two backend calls each."""
    server = world.lessor("small")
    world.openbao()
    for clients in CLIENTS:
        count = max(size.requests * clients // MAX_CLIENTS, size.requests // 4)
        variants = {
            LESSOR: world.issuing(server, BARE, clients, count),
            OPENBAO: world.issuing_peer(clients, count),
            THREE_CALLS: world.issuing(server, PLAIN, clients, count),
            EMPTY: asking(server.child, server.empty(), clients, 4 * count),
        }
        turns = take_turns(size.rounds, variants)
        most = clients == MAX_CLIENTS
        many = "1 client" if clients == 1 else f"{clients} clients"
        yield Figure(
            f"credentials/s beside OpenBao, {many}, 2 calls",
            turns.ratio(LESSOR, OPENBAO, by_rate),
            must=1.2 if most else None,
            aim=1.5 if most else None,
            seen=_with_leases(world, server, turns),
        )
        yield from _cpu(turns, many, judged=most)
        if most:
            yield from _backend(world, {name: variants[name] for name in (LESSOR, OPENBAO)})


def _with_leases(world: World, server: Lessor, turns: Turns) -> str:
    rates = turns.beside(LESSOR, OPENBAO, by_rate, "a second")
    return f"{rates}; leases now: {server.leases():,} beside {world.living(RABBITMQ):,}"


def _backend(world: World, takes: Mapping[str, Take]) -> Iterator[Figure]:
    """Measure whether the two sides of the backend cost the same."""
    for name, take in takes.items():
        cost = world.backend_ms(take)
        yield Figure(f"CPU of a backend call of {name}", cost, "ms", must=0.1, more_is_better=False)


def _cpu(turns: Turns, many: str, *, judged: bool) -> Iterator[Figure]:
    for name, one, other, must, aim in (
        ("2 calls, beside OpenBao's", LESSOR, OPENBAO, 1.0, 0.8),
        ("3 calls, beside an empty RPC", THREE_CALLS, EMPTY, 3.5, 3.0),
    ):
        yield Figure(
            f"CPU a credential, {many}, {name}",
            turns.ratio(one, other, by_cpu),
            must=must if judged else None,
            aim=aim if judged else None,
            more_is_better=False,
            seen=turns.beside(one, other, by_cpu, "ms"),
        )


def http(world: World, size: Size) -> Iterator[Figure]:
    """Measure what a credential costs by Vault's API, beside gRPC."""
    server = world.lessor("small")
    variants = {
        OVER_HTTP: world.issuing_over_http(server, BARE, MAX_CLIENTS, size.requests),
        OVER_GRPC: world.issuing(server, BARE, MAX_CLIENTS, size.requests),
    }
    turns = take_turns(size.rounds, variants)
    yield Figure(
        "CPU of a credential by Vault's API, beside gRPC",
        turns.ratio(OVER_HTTP, OVER_GRPC, by_cpu),
        must=1.3,
        aim=1.0,
        more_is_better=False,
        seen=f"{turns.beside(OVER_HTTP, OVER_GRPC, by_cpu, 'ms')};"
        f" {turns.beside(OVER_HTTP, OVER_GRPC, by_rate, 'a second')}",
    )


def large(world: World, size: Size) -> Iterator[Figure]:
    """Measure the same with large stores."""
    server = world.large(size.large)
    world.fill_openbao(size.large)
    variants = {
        LESSOR: world.issuing(server, BARE, MAX_CLIENTS, size.requests),
        OPENBAO: world.issuing_peer(MAX_CLIENTS, size.requests),
    }
    turns = take_turns(size.rounds, variants)
    yield Figure(
        "credentials/s beside OpenBao, large stores, 32 clients",
        turns.ratio(LESSOR, OPENBAO, by_rate),
        must=1.4,
        aim=1.8,
        seen=_with_leases(world, server, turns),
    )
    yield Figure(
        "CPU a credential, large stores, 32 clients, beside OpenBao's",
        turns.ratio(LESSOR, OPENBAO, by_cpu),
        more_is_better=False,
        seen=turns.beside(LESSOR, OPENBAO, by_cpu, "ms"),
    )


def paced(world: World, size: Size) -> Iterator[Figure]:
    """Measure the latency of credentials that are asked for at an even rate."""
    server, peer = world.lessor("small"), world.openbao()
    for rate in (200, 500):
        variants: dict[str, Take] = {}
        for name, process, side, target in (
            (LESSOR, server.child, IAM, server.credential(BARE)),
            (OPENBAO, peer.child, RABBITMQ, peer.credential()),
            (THREE_CALLS, server.child, IAM, server.credential(PLAIN)),
        ):
            arrive = partial(h2load.arrive, target, rate, size.seconds)
            variants[name] = partial(timed, process, partial(world.counted, side, arrive))
        turns = take_turns(size.rounds, variants, warm_up=False)
        for name, read in (("p50", by_p50), ("p99", by_p99)):
            three, served = turns.middle(THREE_CALLS, read), turns.beside(LESSOR, OPENBAO, by_rate, "/s")
            yield Figure(
                f"{name} of a credential at {rate}/s, 2 calls, beside OpenBao's",
                turns.ratio(LESSOR, OPENBAO, read),
                must=1.0,
                more_is_better=False,
                seen=f"{turns.beside(LESSOR, OPENBAO, read, 'ms')}; 3 calls: {three:.3g} ms; served {served}",
            )


def full_role(world: World, size: Size) -> Iterator[Figure]:
    """Measure a credential of eight calls in two rounds, at 50 ms a call."""
    server = world.lessor("small")
    world.order(latency=AWS_SECONDS)
    try:
        rounds = [
            h2load.load(server.credential(RICH), 1, 12).require_all().p50_ms for _ in range(size.rounds)
        ]
    finally:
        world.order(latency=0)
    yield Figure("a full role at 50 ms a call, p50", median(rounds), "ms", must=112, more_is_better=False)


def renewals(world: World, size: Size) -> Iterator[Figure]:
    """Measure renewals and look-ups, each client with a lease of its own."""
    server, peer = world.lessor("small"), world.openbao()
    ours = [server.issue_one(BARE) for _ in range(CLIENTS[1])]
    theirs = [peer.issue_one() for _ in range(CLIENTS[1])]
    for name, our_call, path in (
        ("renew", server.renew, "sys/leases/renew"),
        ("lookup", server.lookup, "sys/leases/lookup"),
    ):
        count = 2 * size.requests
        variants: dict[str, Take] = {
            LESSOR: asking_each(server.child, [our_call(one) for one in ours], count),
            OPENBAO: asking_each(peer.child, [peer.target(path, {"lease_id": one}) for one in theirs], count),
        }
        turns = take_turns(size.rounds, variants)
        yield Figure(
            f"{name}: a second, beside OpenBao, 8 clients",
            turns.ratio(LESSOR, OPENBAO, by_rate),
            must=1.0,
            seen=f"{turns.beside(LESSOR, OPENBAO, by_rate, 'a second')};"
            f" CPU {turns.beside(LESSOR, OPENBAO, by_cpu, 'ms')}",
        )


def audited(world: World, size: Size) -> Iterator[Figure]:
    """Measure what an audit file and a policy of 50 rules cost."""
    plain = world.lessor("unaudited")  # as new as the other
    access, audit = access_file(world.path("access.toml")), world.path("audit.log")
    more = {"LESSOR_ACCESS_FILE": str(access), "LESSOR_AUDIT_FILE": str(audit)}
    server = world.lessor("audited", more=more)
    without, with_audit = "without", f"audit and {RULES} rules"
    count = 4 * size.requests  # the difference is small, and longer turns vary less
    variants = {
        without: world.issuing(plain, BARE, MAX_CLIENTS, count),
        with_audit: world.issuing(server, BARE, MAX_CLIENTS, count, CALLER_TOKEN),
    }
    turns = take_turns(size.rounds, variants)
    for name in ("audited", "unaudited"):
        world.end(name)
    yield Figure(
        f"credentials/s with audit and {RULES} rules, beside without",
        turns.ratio(with_audit, without, by_rate),
        must=0.9,
        seen=f"{turns.beside(with_audit, without, by_rate, 'a second')};"
        f" CPU {turns.beside(with_audit, without, by_cpu, 'ms')}",
    )


def split(world: World, size: Size) -> Iterator[Figure]:
    """Tell where the CPU of a credential of three calls goes, beside the same calls by plain aioboto3.

    SDK is the server less one whose AWS answers at once; store is that less one whose store does too; gRPC is
    an empty RPC; own code is what remains, with what the parts that answer at once cost themselves.
    """
    whole, no_sdk, no_store, peer = "all", "without the SDK", "without the store", "plain aioboto3"
    all_parts = {whole: REAL, no_sdk: NO_SDK, no_store: NO_STORE}
    servers = {name: world.lessor(f"split-{parts}", parts) for name, parts in all_parts.items()}
    count = size.requests
    with child(
        "bench.plain", world.url, env=world.environment("plain"), log=world.path("plain.log")
    ) as plain:

        def aioboto3() -> Turn:
            before = plain.cpu_seconds()
            plain.ask({"clients": MAX_CLIENTS, "count": count})
            return Turn(0, (plain.cpu_seconds() - before) * 1e3 / count, 0, 0)

        variants: dict[str, Take] = {
            name: asking(server.child, server.credential(PLAIN), MAX_CLIENTS, count, 100)
            for name, server in servers.items()
        }
        variants[EMPTY] = asking(servers[whole].child, servers[whole].empty(), MAX_CLIENTS, 4 * count)
        variants[peer] = aioboto3
        turns = take_turns(size.rounds, variants)
    for parts in all_parts.values():
        world.end(f"split-{parts}")
    yield Figure(
        "CPU a credential beside its three calls by plain aioboto3",
        turns.ratio(whole, peer, by_cpu),
        more_is_better=False,
        seen=turns.beside(whole, peer, by_cpu, "ms"),
    )
    total = turns.middle(whole, by_cpu)
    for name, share in (
        ("SDK", turns.gap(whole, no_sdk, by_cpu)),
        ("gRPC", turns.middle(EMPTY, by_cpu)),
        ("store", turns.gap(no_sdk, no_store, by_cpu)),
        ("own code", turns.gap(no_store, EMPTY, by_cpu)),
    ):
        yield Figure(
            f"CPU a credential: {name}",
            share,
            "ms",
            more_is_better=False,
            seen=f"{share / total:.0%} of {total:.2f} ms",
        )
