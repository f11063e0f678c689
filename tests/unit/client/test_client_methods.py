"""The methods of both clients against the descriptors of the services, and what the package imports."""

from __future__ import annotations

import asyncio
import inspect
import re
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import get_type_hints

import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor

import lessor
from lessor.channel import Connection
from lessor.service_config import REPEATED_BY_ID
from lessor_server.app import SERVICES

METHODS = [method for service in SERVICES for method in service.methods]
OUTPUT_ONLY = {
    ("PutStaticRoleRequest", "access_key"),
    ("PutStaticRoleRequest", "next_rotation_time"),
    ("SetRootRequest", "account"),
}


def python_name(method: MethodDescriptor) -> str:
    """Return the name of an RPC in Python."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", method.name).lower()


def is_own_message(field: FieldDescriptor) -> bool:
    """Return whether a field holds one message of this package."""
    return (
        bool(field.message_type and field.message_type.file.package == "lessor.v1") and not field.is_repeated
    )


def arguments(method: MethodDescriptor) -> set[str]:
    """Return the arguments that the contract gives an RPC."""
    found = {"timeout"}
    for field in method.input_type.fields:
        inner = field.message_type.fields if is_own_message(field) else [field]
        found |= {one.name for one in inner if (method.input_type.name, one.name) not in OUTPUT_ONLY}
    return found


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_each_rpc_is_a_method_of_both_clients(method: MethodDescriptor) -> None:
    name = python_name(method)
    both = (getattr(lessor.Client, name), getattr(lessor.sync.Client, name))
    for function, stream in zip(both, (AsyncGenerator, Generator), strict=True):
        parameters = inspect.signature(function).parameters.values()
        keywords = {one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}
        assert keywords == arguments(method)
        returned = get_type_hints(function)["return"]
        if method.server_streaming:
            assert returned.__origin__ is stream
            returned = returned.__args__[0]
        assert returned.DESCRIPTOR.full_name == method.output_type.full_name
        assert inspect.getdoc(function)
    assert inspect.iscoroutinefunction(both[0]) is not method.server_streaming
    assert not inspect.iscoroutinefunction(both[1])


def test_the_clients_have_no_other_public_methods() -> None:
    own = {"close", "from_environ", "keeper", "lease"}
    for client in (lessor.Client, lessor.sync.Client):
        public = {name for name in dir(client) if not name.startswith("_")}
        assert public == own | {python_name(method) for method in METHODS}


def test_each_call_that_may_have_a_request_id_is_repeated() -> None:
    with_id = {method.name for method in METHODS if "request_id" in method.input_type.fields_by_name}
    assert with_id == set(REPEATED_BY_ID)


def test_every_public_name_can_be_imported_and_completed() -> None:
    for name in lessor.__all__:
        assert getattr(lessor, name)
        assert name in dir(lessor)
    assert issubclass(lessor.NotFound, lessor.Error)
    with pytest.raises(AttributeError, match="no attribute 'Klient'"):
        lessor.Klient  # type: ignore[attr-defined]  # noqa: B018


def test_the_package_alone_imports_neither_grpc_nor_protobuf() -> None:
    code = (
        "import sys, lessor; sys.exit(sorted({'grpc', 'google.protobuf', 'boto3'} & set(sys.modules)) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_client_imports_no_library_of_aws() -> None:
    code = "import sys, lessor; lessor.Client; lessor.sync; sys.exit('botocore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_repr_of_a_client_has_no_token() -> None:
    for client in (
        lessor.Client("db:1", token="s3cret-token"),
        lessor.sync.Client("db:1", token="s3cret-token"),
    ):
        assert "db:1" in repr(client)
        assert "s3cret" not in repr(client) + repr(vars(client))


def test_a_client_of_the_environment_uses_the_six_variables() -> None:
    environ = {"LESSOR_ADDR": "https://db", "LESSOR_TOKEN_FILE": "/tok", "LESSOR_CACERT": "/ca"}
    client = lessor.sync.Client.from_environ(environ)
    assert "https://db" in repr(client)
    assert {"/tok", "/ca"} <= {
        str(value) for value in (client._connection.token_file, client._connection.ca_file)
    }


@pytest.mark.parametrize("kind", [lessor.Client, lessor.sync.Client])
def test_each_argument_of_a_client_is_used(kind: type[lessor.Client | lessor.sync.Client]) -> None:
    made = kind("https://db", token="t", token_file="f", ca="a", cert=Path("c"), key="k", timeout="5s")
    files = (Path("f"), Path("a"), Path("c"), Path("k"))
    assert made._connection == Connection("https://db", "t", *files)
    assert made._calls._timeout == timedelta(seconds=5)


def test_a_client_of_another_event_loop_says_so() -> None:
    client = lessor.Client("127.0.0.1:1", timeout=0.01)

    async def use() -> None:
        with suppress(lessor.Error):
            await client.get_info()

    asyncio.run(use())
    with pytest.raises(RuntimeError, match="in another event loop; create a client for each"):
        asyncio.run(use())


def test_a_closed_client_says_so() -> None:
    client = lessor.sync.Client("127.0.0.1:1")
    client.close()
    with pytest.raises(RuntimeError, match="the client is closed; create another one"):
        client.get_info()
