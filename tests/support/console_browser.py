"""A browser without a screen: it calls the console as a browser would, over a world and without a socket."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from http.cookies import SimpleCookie
from typing import cast
from urllib.parse import urlencode

from aiohttp import streams
from aiohttp.test_utils import make_mocked_request
from aiohttp.web import BaseRequest, Response, StreamResponse

from lessor_server.domain.access.caller import ROOT, AuthMethod, Principal
from lessor_server.domain.errors.base import Unauthenticated
from lessor_server.http_edge.calls import CallRefused, Calls
from lessor_server.http_edge.console.cookies import Cookies
from lessor_server.http_edge.console.face import ConsoleFace
from lessor_server.http_edge.console.pages import PageTemplates
from lessor_server.http_edge.console.routes import ConsoleRoute
from lessor_server.http_edge.console.site import ROUTES
from lessor_server.http_edge.console.visit import Console
from lessor_server.services.guard import Guard
from lessor_server.services.logins import Logins
from tests.support.access import FixedAccess
from tests.support.call_notes import CallNotes
from tests.support.engine_world import World, world
from tests.support.served import ABOUT, services_of

HOST = "console.test:8200"
ROOT_TOKEN = "a-root-token-of-tests"
_VOID = frozenset(("input", "link", "meta", "br", "wbr", "circle", "path", "rect", "option"))


@dataclass
class Form:
    """A form of a page: where it goes, and what it holds."""

    method: str
    action: str
    fields: dict[str, str] = field(default_factory=dict)
    buttons: list[str] = field(default_factory=list)


class _Reader(HTMLParser):
    """Reads forms, texts and landmarks of a page; fails if elements are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self._select = ""
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.elements.append((tag, given))
        if tag not in _VOID:
            self._open.append(tag)
        name = given.get("name", "")
        if tag == "form":
            self.forms.append(Form(given["method"], given["action"]))
        elif tag == "input" and name and given.get("type") != "checkbox":
            self.forms[-1].fields[name] = given.get("value", "")
        elif tag == "input" and name and "checked" in given:
            self.forms[-1].fields[name] = given["value"]
        elif tag == "textarea":
            self.forms[-1].fields[name] = ""
            self._select = f"<{name}"
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select:
            fields = self.forms[-1].fields
            if "selected" in given or self._select not in fields:
                fields[self._select] = given["value"]

    def handle_endtag(self, tag: str) -> None:
        if tag in _VOID:
            return
        assert tag == self._open.pop(), f"</{tag}> closes another element"
        if tag in ("select", "textarea"):
            self._select = ""

    def handle_data(self, data: str) -> None:
        if self._select.startswith("<"):
            self.forms[-1].fields[self._select[1:]] += data.removeprefix("\n")
        if self._open and self._open[-1] == "button" and self.forms:
            self.forms[-1].buttons.append(data.strip())
        if data.strip():
            self.texts.append(data.strip())


@dataclass(frozen=True)
class Seen:
    """An answer as a browser sees it."""

    status: int
    headers: Mapping[str, str]
    text: str
    set_cookies: Mapping[str, Mapping[str, str]]

    @property
    def location(self) -> str:
        """Return where a redirect leads."""
        return self.headers.get("Location", "")

    def forms(self) -> list[Form]:
        """Return the forms of the page."""
        return _Reader(self.text).forms

    def form(self, action: str) -> Form:
        """Return the form that goes to a path."""
        return next(one for one in self.forms() if one.action == action)

    def elements(self, tag: str) -> list[dict[str, str]]:
        """Return the attributes of each element of a kind."""
        return [attributes for name, attributes in _Reader(self.text).elements if name == tag]

    def words(self) -> str:
        """Return all text of the page."""
        return " ".join(_Reader(self.text).texts)

    def title(self) -> str:
        """Return the title."""
        return self.text.partition("<title>")[2].partition("</title>")[0]


class FakeSessions:
    """Sessions by tokens that the access of a test knows."""

    def __init__(self, access: FixedAccess, known: dict[str, Principal]) -> None:
        self._access = access
        self._known = known
        self._numbers = iter(range(1, 10**6))
        self.links: dict[str, str] = {}
        self.ended: list[str] = []

    def open(self, cookie: str) -> str:
        return cookie if cookie.startswith(("session-", "planted")) else ""

    async def begin(self, request: BaseRequest, token: str) -> str:
        if token not in self._known:
            raise CallRefused(Unauthenticated("the token is not known"))
        session = f"session-{next(self._numbers)}"
        self._known[session] = replace(self._known[token], auth_method=AuthMethod.LOGIN)
        return session

    async def begin_by_link(self, request: BaseRequest, code: str) -> str:
        return await self.begin(request, self.links.pop(code, ""))

    async def find_link_owner(self, request: BaseRequest, code: str) -> str:
        known = self._known.get(self.links.get(code, ""))
        return known.name if known else ""

    async def end(self, request: BaseRequest, session: str) -> None:
        self._known.pop(session, None)
        self.ended.append(session)


@dataclass
class Browser:
    """Keeps cookies between requests, as one tab does."""

    face: ConsoleFace
    sessions: FakeSessions
    known: dict[str, Principal]
    world: World
    notes: CallNotes
    withdrawn: list[str]
    """Leases whose key did not reach the browser."""
    cookies: dict[str, str] = field(default_factory=dict)
    is_gone: bool = False
    """Whether it disconnects before it gets an answer."""

    async def ask(
        self,
        method: str,
        path: str,
        data: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Seen:
        """Send one request; cookies of the answer are kept."""
        given = {"Host": HOST, **(headers or {})}
        if self.cookies and "Cookie" not in given:
            given["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if data and "Content-Type" not in given:
            given["Content-Type"] = "application/x-www-form-urlencoded"
        answer = await self.face.answer(request_of_browser(method, path, data, given, is_gone=self.is_gone))
        return self._see(answer)

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> Seen:
        """Open a page; redirects are followed."""
        seen = await self.ask("GET", path, headers=headers)
        return await self.get(seen.location) if seen.status == 303 else seen

    async def send(self, form: Form, **typed: str) -> Seen:
        """Send a form with what was typed; a redirect is followed."""
        assert form.method == "post"
        data = urlencode({**form.fields, **typed}).encode()
        seen = await self.ask("POST", form.action, data, {"Origin": f"http://{HOST}"})
        return await self.get(seen.location) if seen.status == 303 else seen

    async def sign_in(self, token: str = ROOT_TOKEN) -> Seen:
        """Sign in; return the first page."""
        return await self.send((await self.get("/sign-in")).form("/sign-in"), token=token)

    def knows(self, token: str, principal: Principal) -> None:
        """Let the server know a caller by its token."""
        self.known[token] = principal

    def _see(self, answer: StreamResponse) -> Seen:
        set_cookies = {}
        parsed: SimpleCookie = SimpleCookie()
        for header in answer.headers.getall("Set-Cookie", []):
            parsed.load(header)
        for name, cookie in [*parsed.items(), *answer.cookies.items()]:
            set_cookies[name] = {"value": cookie.value, **{key: str(value) for key, value in cookie.items()}}
            if not cookie.value:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = cookie.value
        body = answer.body if isinstance(answer, Response) else b""
        assert body is None or isinstance(body, bytes)
        return Seen(answer.status, dict(answer.headers), (body or b"").decode(), set_cookies)


def request_of_browser(
    method: str, path: str, data: bytes, headers: Mapping[str, str], *, is_gone: bool = False
) -> BaseRequest:
    """Return a request with a body, over a connection that is open."""
    loop = asyncio.get_running_loop()
    payload = streams.StreamReader(_Protocol(), 1 << 16, loop=loop)  # type: ignore[arg-type]
    payload.feed_data(data)
    payload.feed_eof()
    sized = {"Content-Length": str(len(data)), **headers} if data else headers
    return make_mocked_request(method, path, headers=sized, payload=payload, transport=_Transport(is_gone))  # type: ignore[arg-type]


class _Transport:
    """A connection that is open, or was closed by the browser."""

    def __init__(self, is_gone: bool) -> None:
        self._is_gone = is_gone

    def get_extra_info(self, name: str, default: object = None) -> object:
        return ("127.0.0.1", 5) if name == "peername" else default

    def is_closing(self) -> bool:
        return self._is_gone


class _Protocol:
    """What a stream of a body needs of its connection."""

    _reading_paused = False

    def pause_reading(self) -> None: ...

    def resume_reading(self, **_: object) -> None: ...


@functools.cache
def _templates() -> PageTemplates:
    """Compile the templates of all pages, once for all tests."""
    return PageTemplates()


@asynccontextmanager
async def browser(*more: ConsoleRoute, tls: bool = False) -> AsyncIterator[Browser]:
    """Open a browser on the console of a world, where nobody is signed in."""
    known = {ROOT_TOKEN: ROOT}
    withdrawn: list[str] = []
    access, notes = FixedAccess(known), CallNotes()
    async with world(latency=0.001) as w:
        guard = Guard(access, notes, lambda: w.clocks.wall_us() / 1e6)
        about = replace(ABOUT, version="1.2.3", wall_us=w.clocks.wall_us)
        calls = Calls(guard, services_of(w, about).values(), cast("Logins", None))
        rng = random.Random(7)
        console = Console(calls, Cookies(rng, tls=tls), _templates(), rng, withdrawn.append)
        sessions = FakeSessions(access, known)
        face = ConsoleFace(console, sessions, (*more, *ROUTES), notes.report)
        yield Browser(face, sessions, known, w, notes, withdrawn)
        for where, error in notes.reports:
            raise AssertionError(f"unexpected exception in {where}") from error


def paths() -> Iterator[str]:
    """Yield a path of each page of the console; its objects exist in the world."""
    names = {"{mount}": "aws", "{role}": "app", "{lease_id*}": "LEASE"}
    for one in ROUTES:
        if one.verb == "GET" and one.path != "/events/stream":
            path = one.path
            for name, value in names.items():
                path = path.replace(name, value)
            yield path
