"""Checks that a running server accepts the login tokens of its store, and what ends them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import grpc
import pytest

from lessor.v1 import role_pb2
from lessor_server.adapters.clock import SystemClock
from lessor_server.domain.access.login_token import (
    KeptToken,
    LoginTerms,
    NewLoginToken,
    login_digest,
    token_of,
)
from lessor_server.engine.logins import LoginTokens, TokenOptions
from tests.support import access_server
from tests.support.access_server import policy, program, reload, rule, serving_with, who, write
from tests.support.clients import connect
from tests.support.sealed_store import KEY_BYTES, edit, open_with_keyring

pytestmark = pytest.mark.e2e

ADMIN = (policy("admin", rule("update,sudo", "sys/access/reload")), program("admin", "admin"))
APP = (policy("app", rule("list", "aws/roles/")), program("app", "app"))


def make_data_dir(data: Path) -> None:
    """Create a data directory with the key of the tests."""
    data.mkdir(mode=0o700)
    key = data / "sealing-key"
    key.write_bytes(KEY_BYTES)
    key.chmod(0o600)


async def create(data: Path, count: int) -> list[NewLoginToken]:
    """Create a data directory whose store has login tokens of ``app``; each is the parent of the next."""
    make_data_dir(data)
    terms = LoginTerms(KeptToken(login_digest(access_server.token_of("app"))))
    made: list[NewLoginToken] = []
    async with open_with_keyring(data, SystemClock()) as (store, _):
        tokens = LoginTokens(store, random.SystemRandom())
        for _number in range(count):
            parent = made[-1].token if made else None
            made.append(await tokens.create("app", terms, TokenOptions(), parent))
    return made


async def test_login_tokens_of_the_store_are_callers_until_their_identity_leaves(tmp_path: Path) -> None:
    data, file = tmp_path / "data", tmp_path / "access.toml"
    parent, edited, child = await create(data, 3)
    assert edit(data, f"UPDATE login_tokens SET max_expires_us = 9 WHERE digest = '{edited.token.digest}'")
    write(file, *ADMIN, *APP)
    audit = tmp_path / "audit.log"
    async with serving_with(tmp_path, file, {"LESSOR_AUDIT_FILE": str(audit)}) as server:
        async with connect(server.address, parent.text.reveal()) as app:
            found = await who(app)
            assert (found.identity, found.auth_method, list(found.policies)) == ("app", "login", ["app"])
            assert 3500 < found.expire_time.seconds - found.server_time.seconds <= 3600
            with pytest.raises(grpc.aio.AioRpcError) as allowed:  # there is no such mount
                await app.roles.ListRoles(role_pb2.ListRolesRequest(mount="aws"))
            assert allowed.value.code() is grpc.StatusCode.NOT_FOUND
            async with connect(server.address, access_server.token_of("admin")) as admin:
                write(file, *ADMIN)
                await reload(admin)
                with pytest.raises(grpc.aio.AioRpcError) as gone:
                    await who(app)
                write(file, *ADMIN, *APP)
                await reload(admin)
            assert (await who(app)).identity == "app"
        for token, reason in (
            (edited.text, "ROW_TAMPERED"),
            (child.text, "ROW_TAMPERED"),
            (token_of(1), "UNAUTHENTICATED"),
        ):
            async with connect(server.address, token.reveal()) as other:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await who(other)
                assert reason in str(refused.value.trailing_metadata()), reason
    assert gone.value.code() is grpc.StatusCode.UNAUTHENTICATED
    lines = audit.read_text(encoding="utf-8")
    accessors = {json.loads(line).get("accessor") for line in lines.splitlines()}
    assert parent.token.accessor in accessors
    everything = lines + server.log_file.read_text(encoding="utf-8")
    for made in (parent, edited, child):
        assert made.text.reveal() not in everything
        assert made.token.digest not in everything
