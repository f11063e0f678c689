"""Checks that bytes that are not UTF-8 are replaced only for the accept loop of gRPC."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from lessor_server.services.call_paths import accept_undecodable_paths

BAD = b"/\xff\xfe/x"


@pytest.fixture(autouse=True)
def _accepting() -> Iterator[None]:
    before = codecs.lookup_error("strict")
    accept_undecodable_paths()
    yield
    codecs.register_error("strict", before)


async def _decode() -> str:
    return BAD.decode()


async def _server_main_loop() -> str:
    return BAD.decode()


async def test_a_path_that_is_not_utf_8_does_not_end_the_accept_loop() -> None:
    assert await asyncio.get_running_loop().create_task(_server_main_loop()) == "/\ufffd\ufffd/x"


async def test_other_tasks_still_refuse_bytes_that_are_not_utf_8() -> None:
    with pytest.raises(UnicodeDecodeError):
        await asyncio.get_running_loop().create_task(_decode())


def test_code_without_a_loop_still_refuses_them() -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(UnicodeDecodeError):
        pool.submit(BAD.decode).result()


def test_half_a_character_still_cannot_be_encoded() -> None:
    with pytest.raises(UnicodeEncodeError):
        "\ud800".encode()
