"""The stand-in's control API for tests: JSON under ``/_standin/``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import TypeAlias
from urllib.parse import parse_qs, urlsplit

from tests.support.iam_faults import Fault
from tests.support.iam_rules import RefusalError
from tests.support.standin_world import CallLog, World

PREFIX = "/_standin/"

Body: TypeAlias = Mapping[str, object]


def answer_control(world: World, method: str, target: str, body: bytes) -> tuple[int, bytes]:
    """Answer one control request: a status and a JSON body; bad requests are 400 or 404, never raised."""
    url = urlsplit(target)
    query = {name: values[-1] for name, values in parse_qs(url.query).items()}
    route = _ROUTES.get((method, url.path.removeprefix(PREFIX)))
    if route is None:
        return 404, _json({"error": f"no {method} {url.path}"})
    try:
        given = json.loads(body) if body else {}
        return 200, _json(route(world, {**query, **given} if isinstance(given, dict) else {"rules": given}))
    except RefusalError as refusal:
        return refusal.answer.status, _json({"error": str(refusal)})
    except (ValueError, TypeError, KeyError) as fault:
        return 400, _json({"error": repr(fault)})


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _strings(body: Body, name: str) -> list[str]:
    value = body[name]
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _number(body: Body, name: str) -> float:
    value = body[name]
    if not isinstance(value, int | float):
        message = f"{name} must be a number"
        raise TypeError(message)
    return float(value)


def _state(world: World, body: Body) -> object:
    return world.iam.peer(str(body.get("account", world.iam.account))).snapshot()


def _totals(world: World, _: Body) -> object:
    return {
        "totals": world.log.totals(),
        "count": len(world.log.calls),
        "peak_per_second": world.log.peak,
        "connections": world.log.connections,
    }


def _calls(world: World, body: Body) -> object:
    after = int(str(body.get("after", 0)))
    listed = [asdict(call) for call in world.log.calls[after:]]
    return {"calls": listed, "totals": world.log.totals(), "peak_per_second": world.log.peak}


def _forget_calls(world: World, _: Body) -> object:
    world.log = CallLog()
    return {}


def _add_faults(world: World, body: Body) -> object:
    rules = body.get("rules", [body])
    if not isinstance(rules, list):
        message = "rules must be a list"
        raise TypeError(message)
    for fault in [Fault.of(rule) for rule in rules]:
        world.faults.add(fault)
    return {}


def _clear_faults(world: World, _: Body) -> object:
    world.faults.clear()
    return {}


def _reset(world: World, _: Body) -> object:
    world.reset()
    return {}


def _latency(world: World, body: Body) -> object:
    world.latency = _number(body, "seconds")
    return {}


def _down(world: World, _: Body) -> object:
    world.down = True
    return {}


def _up(world: World, _: Body) -> object:
    world.down = False
    return {}


def _touch(world: World, body: Body) -> object:
    world.iam.touch(str(body["user"]), _strings(body, "things"))
    return world.iam.get_user(str(body["user"])).snapshot()


def _forget(world: World, body: Body) -> object:
    world.iam.forget(str(body["user"]))
    return {}


def _groups(world: World, body: Body) -> object:
    for name in _strings(body, "names"):
        world.iam.create_group(name)
    return {}


def _root(world: World, body: Body) -> object:
    return world.iam.adopt_root(str(body["access_key_id"])).snapshot()


def _account(world: World, body: Body) -> object:
    iam = world.iam
    if "account" in body:
        iam.account = str(body["account"])
    if "max_users" in body:
        iam.quotas = replace(iam.quotas, users=int(_number(body, "max_users")))
    if "visible_after" in body:
        iam.visible_after = _number(body, "visible_after")
    if "clock_offset" in body:
        world.clock_offset = _number(body, "clock_offset")
    return {}


def _role(world: World, body: Body) -> object:
    """Make a role: ``name``, the ``account`` it is in, and the fields of its trust."""
    trust = {name: value for name, value in body.items() if name not in ("name", "account")}
    if "trusts" in trust:
        trust["trusts"] = tuple(_strings(body, "trusts"))
    home = world.iam.peer(str(body.get("account", world.iam.account)))
    return {"arn": home.add_role(str(body["name"]), **trust).arn}


def _sts(world: World, body: Body) -> object:
    """Change STS: ``root_arn``, ``packed_limit``, ``mfa_codes`` by serial number, ``verdicts`` by action."""
    for name, value in body.items():
        if name not in ("root_arn", "packed_limit", "mfa_codes", "verdicts"):
            raise ValueError(name)
        setattr(world.iam.sts, name, value)
    return {}


def _kms(world: World, body: Body) -> object:
    """Set the ``state`` of the key with an ``arn``, and the ``fault`` of calls, all or of one ``action``."""
    if "arn" in body:
        world.kms.states[str(body["arn"])] = str(body["state"])
    world.kms.fault = str(body.get("fault", world.kms.fault))
    world.kms.faulty_action = str(body.get("action", ""))
    return {"calls": dict(world.kms.calls)}


def _session(world: World, body: Body) -> object:
    """Return one session: its principal and its parameters."""
    sessions = [
        key for one in world.iam.peers.values() for key in one.sts.sessions.values() if key.id == body["id"]
    ]
    shown = asdict(sessions[0])
    return {name: value for name, value in shown.items() if name not in ("secret", "token", "made")}


def _call(world: World, body: Body) -> object:
    """Carry out one call of the account's administrator, such as AttachGroupPolicy."""
    params = {str(name): str(value) for name, value in body.items() if name != "action"}
    answer = world.iam.handle(str(body["action"]), params)
    if not answer.ok:
        raise RefusalError(answer.status, answer.code, answer.message)
    return answer.result


_ROUTES: dict[tuple[str, str], Callable[[World, Body], object]] = {
    ("GET", "state"): _state,
    ("GET", "calls"): _calls,
    ("GET", "totals"): _totals,
    ("DELETE", "calls"): _forget_calls,
    ("POST", "faults"): _add_faults,
    ("DELETE", "faults"): _clear_faults,
    ("POST", "reset"): _reset,
    ("POST", "latency"): _latency,
    ("POST", "down"): _down,
    ("POST", "up"): _up,
    ("POST", "touch"): _touch,
    ("POST", "forget"): _forget,
    ("POST", "groups"): _groups,
    ("POST", "root"): _root,
    ("POST", "account"): _account,
    ("POST", "role"): _role,
    ("POST", "sts"): _sts,
    ("POST", "kms"): _kms,
    ("GET", "session"): _session,
    ("POST", "call"): _call,
}
