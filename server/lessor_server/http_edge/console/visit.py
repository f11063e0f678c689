"""One request of a signed-in person: its calls, its form, and its page."""

from __future__ import annotations

import random
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, TypeVar

from aiohttp.web import BaseRequest, Response, StreamResponse
from google.protobuf.message import Message

from lessor.v1 import config_pb2, system_pb2
from lessor_server.domain.errors.base import ErrorKind
from lessor_server.http_edge.answers import deliver
from lessor_server.http_edge.calls import CallRefused, Calls
from lessor_server.http_edge.console import answers
from lessor_server.http_edge.console.cookies import Cookies, Note, csrf_token
from lessor_server.http_edge.console.pages import PageTemplates
from lessor_server.http_edge.exchange import CALL_SECONDS, HttpExchange, token_credential
from lessor_server.services.messages import DEFAULT_MOUNT

MAX_MOUNTS: Final = 1_000
"""The number of engines that the console lists."""

M = TypeVar("M", bound=Message)
Send = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Console:
    """What every visit shares."""

    calls: Calls
    cookies: Cookies
    pages: PageTemplates
    rng: random.Random
    withdraw: Callable[[str], None]
    """Begins to revoke the lease of a key that its caller did not get."""


@dataclass(slots=True)
class Visit:
    """One request; ``path`` are the names in its path, ``typed`` what was typed into its form."""

    console: Console
    request: BaseRequest
    session: str
    path: Mapping[str, str] = field(default_factory=dict)
    typed: Mapping[str, str] = field(default_factory=dict)
    person: system_pb2.WhoAmIResponse = field(default_factory=system_pb2.WhoAmIResponse)
    info: system_pb2.GetInfoResponse = field(default_factory=system_pb2.GetInfoResponse)

    async def call(
        self, method: str, message: Message, answer: type[M], *, seconds: float = CALL_SECONDS
    ) -> M:
        """Call a method of our services as the person, and return its answer; of a stream the last message.

        Raises:
            CallRefused: The call was refused.
        """

        async def ask() -> Message:
            return message

        credential = token_credential(self.request, self.session)
        exchange = HttpExchange(self.request, ask, credential=credential, seconds=seconds)
        found = await self.console.calls.serve(method, exchange)
        assert isinstance(found, answer)
        return found

    async def call_if_allowed(self, method: str, message: Message, answer: type[M]) -> M | None:
        """Call a method as ``call``; return None if the person lacks the right."""
        try:
            return await self.call(method, message, answer)
        except CallRefused as failed:
            if failed.kind is ErrorKind.DENIED:
                return None
            raise

    async def follow(
        self, method: str, message: Message, begin: Callable[[], Awaitable[None]], send: Send
    ) -> None:
        """Serve a lasting stream of the person; ``begin`` is awaited once, and ``send`` for each message.

        Raises:
            CallRefused: The stream was refused, or has ended with an error.
        """

        async def ask() -> Message:
            return message

        exchange = HttpExchange(
            self.request,
            ask,
            credential=token_credential(self.request, self.session),
            seconds=None,
            begin=begin,
            write=send,
        )
        await self.console.calls.serve(method, exchange)

    async def identify(self) -> None:
        """Read who the person is.

        Raises:
            CallRefused: The session has ended.
        """
        who = system_pb2.WhoAmIRequest()
        self.person = await self.call("SystemService.WhoAmI", who, system_pb2.WhoAmIResponse)

    async def list_mounts(self) -> list[config_pb2.Mount]:
        """Return the engines; none if the person may not list them."""
        return await self.find_mounts() or []

    async def find_mounts(self) -> list[config_pb2.Mount] | None:
        """Return the engines, or None if the person may not list them."""
        request = config_pb2.ListMountsRequest(page_size=MAX_MOUNTS)
        answer = await self.call_if_allowed(
            "ConfigService.ListMounts", request, config_pb2.ListMountsResponse
        )
        return None if answer is None else list(answer.mounts)

    async def list_mount_names(self, chosen: str = "") -> list[str]:
        """Return the names of the engines to choose from, and the chosen one in any case."""
        names = [one.mount for one in await self.list_mounts()]
        extra = chosen if chosen else ("" if names else DEFAULT_MOUNT)
        return names if not extra or extra in names else [extra, *names]

    async def find_mount(self) -> str:
        """Return the engine that the address names; without one ``aws``, or else the first that there is."""
        if named := self.query("mount"):
            return named
        names = [one.mount for one in await self.list_mounts()]
        return DEFAULT_MOUNT if DEFAULT_MOUNT in names or not names else names[0]

    def query(self, name: str) -> str:
        """Return a parameter of the address; empty without it."""
        return str(self.request.query.get(name, ""))[:512]

    def draw_request_id(self) -> str:
        """Return a new id for a request that may be repeated."""
        return str(uuid.UUID(int=self.console.rng.getrandbits(128), version=4))

    async def render(
        self, template: str, *, title: str, status: HTTPStatus = HTTPStatus.OK, **values: object
    ) -> Response:
        """Return a page, with what all pages show: who is signed in, and whether expiry is held."""
        self.info = await self.call(
            "SystemService.GetInfo", system_pb2.GetInfoRequest(), system_pb2.GetInfoResponse
        )
        notes = self.console.cookies.take_notes(self.request, self.session)
        text = self.console.pages.render(
            template,
            title=title,
            person=self.person,
            info=self.info,
            notes=notes,
            csrf=csrf_token(self.session),
            here=self.request.path,
            failed=status >= HTTPStatus.BAD_REQUEST,
            **values,
        )
        response = answers.make_page(text, status)
        if notes:
            self.console.cookies.clear_notes(response)
        return response

    async def deliver(self, response: Response, lease_id: str) -> Response:
        """Send a page with a new key; revoke its lease if the browser has gone: nobody has the key then."""
        await deliver(self.request, response, lambda: self.console.withdraw(lease_id))
        return response

    def go(self, path: str, *done: str, warnings: tuple[str, ...] = ()) -> StreamResponse:
        """Return a redirect to a page, which then says what was done."""
        response = answers.redirect(path)
        notes = [Note("done", text) for text in done] + [Note("warning", text) for text in warnings]
        if notes:
            self.console.cookies.set_notes(response, self.session, notes)
        return response
