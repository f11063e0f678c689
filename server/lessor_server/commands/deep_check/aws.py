"""Checks each engine's root on AWS: the answers of AWS, the clock, the root's rights, the quota of users."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from botocore.exceptions import BotoCoreError

import lessor
from lessor.findings import Finding
from lessor_server.adapters.aws.gateway import AwsGateway
from lessor_server.adapters.aws.http_client import HttpClient
from lessor_server.adapters.aws.query_client import QueryClient
from lessor_server.adapters.aws.routes import Routes
from lessor_server.adapters.aws.sdk_session import find_ca_file
from lessor_server.adapters.aws.signing_key import FORM
from lessor_server.adapters.clock import SystemClock
from lessor_server.domain.aws.iam_calls import GetAccountSummary, UserRoom
from lessor_server.domain.aws.sts_calls import GetServerTime
from lessor_server.domain.errors.base import LessorError
from lessor_server.domain.errors.preconditions import RootNotSet
from lessor_server.engine.aws.caller import AwsCaller
from lessor_server.engine.aws.rate_limiter import Priority, RateLimit, RateLimiters
from lessor_server.engine.aws.roots import Roots
from lessor_server.engine.config.root_checker import RootCheck, RootChecker, Verdict
from lessor_server.engine.paging import iter_mounts
from lessor_server.engine.ports import Store
from lessor_server.engine.sealing_ports import Sealer
from lessor_server.engine.supervisor import Supervisor
from lessor_server.settings.model import Settings

MAX_MOUNTS_CHECKED: Final = 20
"""The check of a root may take 5 s."""
LOW_SHARE: Final = 0.8
"""The share of the quota of users from which on a mount gets a warning."""
DOUBTFUL_SKEW_SECONDS, BAD_SKEW_SECONDS = 30, 120
"""Up to how much the clock may differ from AWS's; from 120 s on expiries are held."""
GLOBAL_STS: Final = "https://sts.amazonaws.com"
ENDPOINT_SECONDS: Final = 7.0
_UNSIGNED: Final = b"Action=GetCallerIdentity&Version=2011-06-15"
_SHOWN: Final = 8
_CLOCK_FIX: Final = "set this machine's clock by NTP"


@dataclass(frozen=True, slots=True)
class RootsOnAws:
    """The roots of a store, and how to ask AWS about them."""

    store: Store
    roots: Roots
    checker: RootChecker


@asynccontextmanager
async def open_roots(settings: Settings, store: Store, sealer: Sealer) -> AsyncIterator[RootsOnAws]:
    """Prepare calls to AWS with the roots of ``store`` while the block runs; no engine runs."""
    instance = (await store.status()).instance_id
    async with QueryClient(f"lessor/{lessor.__version__}", SystemClock().wall) as client:
        gateway = AwsGateway(
            client,
            Routes(settings.aws.allowed_endpoints),
            f"lessor-{instance}",
            token_places=settings.token_places,
        )
        roots = Roots(
            store,
            sealer,
            gateway,
            RateLimiters(RateLimit()),
            random.SystemRandom(),
            instance,
            Supervisor(_ignore),
        )
        yield RootsOnAws(store, roots, RootChecker(store, roots))


def _ignore(_: str, __: BaseException) -> str:
    """Report nothing: an unexpected error ends the check that met it, which says so."""
    return ""


async def check_roots(aws: RootsOnAws) -> AsyncIterator[Finding]:
    """Check the root of each mount, and the clock by the first that AWS answers."""
    mounts, is_clock_known = 0, False
    async for mount in iter_mounts(aws.store):
        mounts += 1
        if mounts > MAX_MOUNTS_CHECKED:
            text = f"only the first {MAX_MOUNTS_CHECKED} engines were checked"
            yield Finding.doubtful("aws", text, "run lessor config root check for the others")
            break
        try:
            root = await aws.roots.get(mount.name)
            result = await aws.checker.check_root(mount.name)
        except RootNotSet as error:
            yield Finding.doubtful("aws", error.message, "set one with lessor config root set")
            continue
        except LessorError as error:
            yield Finding.bad("aws", f"{mount.name}: {error.message}", error.fix)
            continue
        for finding in _judge_root(mount.name, result):
            yield finding
        account = await aws.store.get_bound_account(mount.name)
        if account not in {"", result.identity.account}:
            text = f"the root of {mount.name} is of another account than the engine's leases"
            yield Finding.bad("root", text, "set a root of their account, or their users are never deleted")
        caller = aws.roots.caller(root, Priority.CHECK)
        yield await _check_quota(mount.name, caller)
        if not is_clock_known:
            is_clock_known = True
            yield await _check_clock(caller)
    if not mounts:
        yield Finding.doubtful("aws", "there is no engine yet", "run lessor enable aws")


async def check_endpoint(settings: Settings) -> list[Finding]:
    """Check that AWS answers, and the clock, without a root: by a request that is not signed.

    AWS refuses it, which is an answer. The endpoint is the first of the settings, or the global one of STS: a
    root may name another, so no answer is a warning.
    """
    url = next(iter(settings.aws.allowed_endpoints), GLOBAL_STS)
    http = HttpClient(find_ca_file)
    until = asyncio.get_running_loop().time() + ENDPOINT_SECONDS
    try:
        answer = await http.send("POST", f"{url}/", {"Content-Type": FORM}, _UNSIGNED, until)
    except BotoCoreError as error:
        problem = " ".join(str(error).split())
        fix = "check the network, the proxy (HTTPS_PROXY) and the DNS of this machine"
        return [Finding.doubtful("aws", f"{url} does not answer: {problem}", fix)]
    finally:
        http.close()
    found = [Finding.good("aws", f"{url} answers")]
    date = answer.headers.get("date")
    if date is not None:
        with suppress(ValueError):  # it is not AWS
            found.append(_judge_clock(parsedate_to_datetime(date).timestamp()))
    return found


def _judge_root(mount: str, result: RootCheck) -> Iterator[Finding]:
    arn = result.identity.arn
    yield Finding.good("aws", f"AWS answers; the root of {mount} is {arn}")
    denied = [action for action, verdict in result.verdicts.items() if verdict is Verdict.DENIED]
    unknown = [action for action, verdict in result.verdicts.items() if verdict is Verdict.UNKNOWN]
    command = f"lessor config root check --mount {mount}"
    if denied:
        text = f"the root of {mount} is not allowed to call {_listed(denied)}"
        yield Finding.bad("rights", text, f"give it the policy that {command} --format policy prints")
    elif unknown:
        text = f"it is unknown whether the root of {mount} may call {_listed(unknown)}"
        yield Finding.doubtful("rights", text, "allow it iam:SimulatePrincipalPolicy on itself")
    else:
        yield Finding.good("rights", f"the root of {mount} may do all that its roles need")
    for warning in result.warnings:
        if "is not allowed to call" not in warning and "IAM users of its quota" not in warning:
            yield Finding.doubtful("root", f"{mount}: {warning}", f"see {command}")


async def _check_quota(mount: str, caller: AwsCaller) -> Finding:
    room = await caller.call(GetAccountSummary())
    if isinstance(room, LessorError):
        text = f"the users in the account of {mount} can't be counted: {room.message}"
        return Finding.doubtful("quota", text, "allow the root iam:GetAccountSummary")
    return _judge_room(mount, room)


def _judge_room(mount: str, room: UserRoom) -> Finding:
    text = f"the account of {mount} has {room.users} of {room.quota} IAM users"
    if not room.quota:
        return Finding.good("quota", f"AWS names no quota of IAM users for the account of {mount}")
    if room.users >= room.quota:
        return Finding.bad("quota", text, "delete users that nobody needs, or have the quota raised")
    if room.users >= LOW_SHARE * room.quota:
        return Finding.doubtful("quota", text, "have the quota raised, or use roles of STS types")
    return Finding.good("quota", text)


async def _check_clock(caller: AwsCaller) -> Finding:
    answer = await caller.call(GetServerTime())
    if isinstance(answer, LessorError) or not answer:
        fix = "check the endpoint of the root: AWS always sends the time"
        return Finding.doubtful("clock", "AWS's time is not known", fix)
    return _judge_clock(answer / 1e6)


def _judge_clock(theirs: float) -> Finding:
    """Compare the machine's clock with AWS's, in seconds since the epoch."""
    ahead = SystemClock().wall() - theirs
    text = f"this machine's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} AWS's"
    if abs(ahead) > BAD_SKEW_SECONDS:
        return Finding.bad("clock", text, _CLOCK_FIX)
    if abs(ahead) > DOUBTFUL_SKEW_SECONDS:
        return Finding.doubtful("clock", text, _CLOCK_FIX)
    return Finding.good("clock", text)


def _listed(actions: list[str]) -> str:
    more = len(actions) - _SHOWN
    return ", ".join(actions[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
