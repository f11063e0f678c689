"""Says what was measured: ratios first, since a machine's speed drifts; milliseconds second; aims beside."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from bench.measure import AWS_SECONDS, CLIENTS, EMPTY, MAX_CLIENTS, PEER, RULED, Results
from bench.server import NO_SDK, NO_STORE
from bench.setting import FEW, MANY, RULES

_HOW = f"""\
A credential is one IAM user with an inline policy: CreateUser, PutUserPolicy, CreateAccessKey, against a
stand-in for AWS that answers at once. Server, stand-in and callers are processes of their own. CPU is user
and system time of the server process, all threads, from /proc/PID/stat. Variants take turns in each round;
figures are medians of the rounds. Ratios come first and, like differences, are taken within a round, since a
machine's speed drifts. Aims are for {MAX_CLIENTS} clients.
"""
_SPLIT = """\
SDK is the real server less one whose AWS answers at once; store is that less one whose store does too; gRPC
is an empty RPC (SystemService.GetInfo, with its token check); own code is what then remains, with what the
AWS and the store that answer at once cost themselves.
"""


def report(results: Results) -> str:
    """Return the whole report as text."""
    title = f"What a credential costs ({results.size.rounds} rounds)"
    tables = (_table("ratios", _ratios(results)), _by_clients(results), _split(results), _SPLIT)
    return "\n".join((title, _HOW, *tables, _table("latency and calls", _rest(results))))


def _ratios(results: Results) -> Iterator[tuple[str, str, str]]:
    few, many = results.leases[FEW], results.leases[MANY]
    yield "credential / empty RPC", f"{results.ratio(FEW, EMPTY):.1f} ×", "≤ 12 ×"
    yield "credential / its three calls by plain aioboto3", f"{results.ratio(FEW, PEER):.2f} ×", ""
    yield (
        f"credential by a caller with {RULES} rules / by root",
        f"{results.ratio(RULED, FEW):.2f} ×",
        "≤ 1.05 ×",
    )
    growth = f"{results.ratio(MANY, FEW):.2f} ×"
    yield f"credential at {many} leases / at {few}", growth, "1 ×: nothing grows with leases"


def _split(results: Results) -> str:
    whole = results.cpu_ms(FEW)
    shares = (
        ("SDK", results.share(FEW, NO_SDK), ""),
        ("gRPC", results.cpu_ms(EMPTY), ""),
        ("store", results.share(NO_SDK, NO_STORE), "≤ 0.2 ms"),
        ("own code", results.share(NO_STORE, EMPTY), "≤ 0.4 ms"),
    )
    rows = [("all", f"{whole:.2f} ms", "≤ 3.6 ms")]
    rows += [(name, f"{share:.2f} ms  {share / whole:4.0%}", aim) for name, share, aim in shares]
    rows.append(("its three calls by plain aioboto3", f"{results.cpu_ms(PEER):.2f} ms", ""))
    return _table(f"CPU a credential, {MAX_CLIENTS} clients", rows)


def _by_clients(results: Results) -> str:
    rows = [("clients", *map(str, CLIENTS))]
    rows.append(("credential / empty RPC", *(f"{results.ratio(FEW, EMPTY, n):.1f} ×" for n in CLIENTS)))
    rows.append(("credentials a second", *(f"{results.rate(FEW, n):.0f}" for n in CLIENTS)))
    rows.append(("CPU a credential, ms", *(f"{results.cpu_ms(FEW, n):.2f}" for n in CLIENTS)))
    rows.append(("CPU an empty RPC, ms", *(f"{results.cpu_ms(EMPTY, n):.2f}" for n in CLIENTS)))
    lines = [f"  {name:<46}" + "".join(f"{value:>10}" for value in values) for name, *values in rows]
    return "\n".join(("by clients", *lines, ""))


def _rest(results: Results) -> Iterator[tuple[str, str, str]]:
    name = f"an issue of eight calls of {AWS_SECONDS * 1e3:.0f} ms each, p50"
    yield name, f"{median(results.latency_ms):.0f} ms", "< 125 ms"
    total = sum(results.revocation_calls.values())
    yield "AWS calls of a plain revocation", str(total), f"3: {', '.join(results.revocation_calls)}"


def _table(title: str, rows: Iterator[tuple[str, str, str]] | list[tuple[str, str, str]]) -> str:
    lines = [f"  {name:<46}{value:>14}" + (f"   aim {aim}" if aim else "") for name, value, aim in rows]
    return "\n".join((title, *lines, ""))
