"""The console's way of a request: who signs in, what a form must bring, and what an error looks like."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from aiohttp.web import BaseRequest, Response, StreamResponse

from lessor_server.domain.errors.base import ErrorKind
from lessor_server.http_edge.answers import http_status
from lessor_server.http_edge.calls import CallRefused
from lessor_server.http_edge.console import answers
from lessor_server.http_edge.console.cookies import csrf_token, is_csrf_token
from lessor_server.http_edge.console.problems import page_problem
from lessor_server.http_edge.console.read_form import MAX_FORM, MAX_SIGN_IN, BadForm, read_form
from lessor_server.http_edge.console.routes import ConsoleRoute, find_routes
from lessor_server.http_edge.console.sessions import ConsoleSessions
from lessor_server.http_edge.console.visit import Console, Visit

CSRF_FIELD: Final = "csrf"
_SIGN_IN: Final = "/sign-in"
_LINK: Final = "/sign-in/link"
_FOREIGN_FORM: Final = (
    "this form was not sent by a page of this console; open the page again and send it from there"
)


class ConsoleFace:
    """Serves every path outside of ``/v1``. Tokens in headers have no effect, only cookies of sessions."""

    def __init__(
        self,
        console: Console,
        sessions: ConsoleSessions,
        routes: Iterable[ConsoleRoute],
        report: Callable[[str, BaseException], str],
    ) -> None:
        """Serve ``routes`` to people who sign in by ``sessions``; unexpected exceptions go to ``report``."""
        self._console = console
        self._sessions = sessions
        self._routes = tuple(routes)
        self._report = report

    def owns(self, path: str) -> bool:
        """Return whether a path belongs to the console."""
        return path != "/v1" and not path.startswith("/v1/")

    async def answer(self, request: BaseRequest) -> StreamResponse:
        """Return the answer to a request."""
        try:
            return await self._answer(request)
        except BadForm as error:
            return self._show_error(error.status, "This form can't be used", str(error))
        except CallRefused as failed:
            return self._refuse(request, failed)
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 - nothing unmapped may leave
            reference = self._report("console", error)
            text = f"The server's log has the cause under the reference {reference}."
            return self._show_error(HTTPStatus.INTERNAL_SERVER_ERROR, "Unexpected error", text)

    async def _answer(self, request: BaseRequest) -> StreamResponse:
        path, verb = request.path, "GET" if request.method == "HEAD" else request.method
        if not request.raw_path.isascii():
            text = "Its address has bytes that are not allowed there; percent-encode them."
            return self._show_error(HTTPStatus.BAD_REQUEST, "This request is not valid", text)
        if path.startswith("/static/") and verb == "GET":
            return self._send_static(path.removeprefix("/static/"))
        if verb == "POST":
            _require_own_origin(request, tls=self._console.cookies.is_secure)
        match verb, path:
            case ("GET", "/sign-in"):
                return self._show_sign_in(request)
            case ("POST", "/sign-in"):
                return await self._sign_in(request)
            case ("POST", "/sign-in/link"):
                return await self._sign_in_by_link(request)
            case ("GET", _) if path.startswith(f"{_LINK}/"):
                code = path.removeprefix(f"{_LINK}/")
                owner = await self._sessions.find_link_owner(request, code)
                return self._show_sign_in(request, code=code, owner=owner)
        found = find_routes(self._routes, path)
        if not found and path != "/sign-out":
            return self._show_error(HTTPStatus.NOT_FOUND, "Not found", "This console has no such page.")
        if path == "/sign-out":
            found = {"POST": (self._sign_out, {})}
        if verb not in found:
            response = self._show_error(
                HTTPStatus.METHOD_NOT_ALLOWED, "Not possible", "This page can't be used in this way."
            )
            response.headers["Allow"] = ", ".join(sorted(found))
            return response
        handler, names = found[verb]
        visit = await self._open_visit(request, names)
        if isinstance(visit, StreamResponse):
            return visit
        try:
            return await handler(visit)
        except CallRefused as refused:
            if refused.kind is ErrorKind.UNAUTHENTICATED:
                raise
            problem = page_problem(refused)
            return await visit.render(
                "refused.html", title=problem.heading, problem=problem, status=http_status(refused.kind)
            )

    async def _open_visit(self, request: BaseRequest, names: Mapping[str, str]) -> Visit | StreamResponse:
        """Identify the person, and only then read the form; return an answer if the person must sign in."""
        session = self._sessions.open(self._console.cookies.session_of(request))
        if not session:
            return self._ask_to_sign_in(request)
        visit = Visit(self._console, request, session, names)
        await visit.identify()
        if request.method == "POST":
            typed = await read_form(request, MAX_FORM)
            if not is_csrf_token(session, typed.pop(CSRF_FIELD, "")):
                raise BadForm(HTTPStatus.FORBIDDEN, _FOREIGN_FORM)
            visit.typed = typed
        return visit

    def _ask_to_sign_in(self, request: BaseRequest) -> StreamResponse:
        """Lead to the sign-in; a link of another site is followed once more, now from a page of ours."""
        if request.method == "POST":
            return answers.redirect(answers.page_link("sign-in"))
        here = answers.own_path(request.path_qs)
        if request.headers.get("Sec-Fetch-Site") == "cross-site":
            # The browser keeps the cookie back (SameSite=Strict), so the person may well be signed in.
            response = answers.make_page(
                self._console.pages.render("continue.html", title="Continue", here=here)
            )
            response.headers["Refresh"] = f"0; url={here}"
            return response
        return answers.redirect(answers.page_link("sign-in", next=here))

    def _show_sign_in(
        self,
        request: BaseRequest,
        *,
        code: str = "",
        owner: str = "",
        problem: str = "",
        next_path: str = "",
    ) -> Response:
        cookies = self._console.cookies
        value = cookies.form_of(request) or cookies.draw_form()
        text = self._console.pages.render(
            "sign_in.html",
            title="Open the console" if code else "Sign in",
            csrf=csrf_token(value),
            code=code[:256],
            owner=owner,
            next=next_path or answers.own_path(request.query.get("next", "/")),
            problem=problem,
            failed=bool(problem),
        )
        response = answers.make_page(text, HTTPStatus.FORBIDDEN if problem else HTTPStatus.OK)
        cookies.set_form(response, value)
        return response

    async def _read_sign_in(self, request: BaseRequest) -> dict[str, str]:
        typed = await read_form(request, MAX_SIGN_IN)
        if not is_csrf_token(self._console.cookies.form_of(request), typed.pop(CSRF_FIELD, "")):
            raise BadForm(HTTPStatus.FORBIDDEN, _FOREIGN_FORM)
        return typed

    async def _sign_in(self, request: BaseRequest) -> StreamResponse:
        typed = await self._read_sign_in(request)
        next_path = answers.own_path(typed.get("next", "/"))
        token = typed.get("token", "").strip()
        if not token or not token.isascii() or not token.isprintable():
            problem = "enter a token or a JWT; it has printable ASCII characters only"
            return self._show_sign_in(request, problem=problem, next_path=next_path)
        try:
            cookie = await self._sessions.begin(request, token)
        except CallRefused as failed:
            return self._show_sign_in(request, problem=_sentence(failed), next_path=next_path)
        return await self._begin(request, cookie, next_path)

    async def _sign_in_by_link(self, request: BaseRequest) -> StreamResponse:
        typed = await self._read_sign_in(request)
        try:
            cookie = await self._sessions.begin_by_link(request, typed.get("code", ""))
        except CallRefused as failed:
            return self._show_sign_in(request, problem=_sentence(failed))
        return await self._begin(request, cookie, "/")

    async def _begin(self, request: BaseRequest, cookie: str, path: str) -> StreamResponse:
        """Lead to a page in a new session; one that the browser had before ends."""
        if before := self._sessions.open(self._console.cookies.session_of(request)):
            with suppress(CallRefused):  # its cookie is replaced in any case, and it ends within hours
                await self._sessions.end(request, before)
        response = answers.redirect(path)
        self._console.cookies.set_session(response, cookie)
        return response

    async def _sign_out(self, visit: Visit) -> StreamResponse:
        await self._sessions.end(visit.request, visit.session)
        cookies = self._console.cookies
        response = answers.redirect(_SIGN_IN)
        cookies.clear_session(response)
        cookies.set_form(response, cookies.draw_form())
        return response

    def _refuse(self, request: BaseRequest, failed: CallRefused) -> StreamResponse:
        """Show the error of a call; a session that has ended leads to the sign-in."""
        if failed.kind is ErrorKind.UNAUTHENTICATED:
            path = answers.own_path(request.path_qs) if request.method == "GET" else "/"
            response = answers.redirect(answers.page_link("sign-in", next=path))
            self._console.cookies.clear_session(response)
            return response
        shown = page_problem(failed)
        return self._show_error(http_status(failed.kind), shown.heading, shown.text, shown.fix, shown.reason)

    def _show_error(
        self, status: HTTPStatus, heading: str, text: str, fix: str = "", reason: str = ""
    ) -> Response:
        page = self._console.pages.render(
            "error.html", title=heading, text=text, fix=fix, reason=reason, failed=True
        )
        return answers.make_page(page, status)

    def _send_static(self, name: str) -> Response:
        if name not in self._console.pages.static:
            return self._show_error(HTTPStatus.NOT_FOUND, "Not found", "This console has no such file.")
        body, kind = self._console.pages.static[name]
        response = Response(body=body)
        answers.protect(response)
        response.headers["Content-Type"] = kind
        return response


def _require_own_origin(request: BaseRequest, *, tls: bool) -> None:
    """Raise ``BadForm`` for a form of another site. The edge has checked the Host header.

    A proxy may serve TLS for a listener in the clear, so there both schemes are this site's.
    """
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise BadForm(HTTPStatus.FORBIDDEN, _FOREIGN_FORM)
    for origin in request.headers.getall("Origin", ()):
        parts = urlsplit(origin)
        schemes = ("https",) if tls else ("http", "https")
        if parts.scheme not in schemes or parts.netloc.lower() != request.headers.get("Host", "").lower():
            raise BadForm(HTTPStatus.FORBIDDEN, _FOREIGN_FORM)


def _sentence(failed: CallRefused) -> str:
    shown = page_problem(failed)
    return f"{shown.text}; {shown.fix}"
