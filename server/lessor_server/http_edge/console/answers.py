"""Pages and redirects, with the headers that every answer of the console has.

Sources: W3C, "Content Security Policy Level 3"; W3C, "Referrer Policy": with ``no-referrer`` Chromium sends
``Origin: null`` with a page's own forms.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

from aiohttp.web import Response, StreamResponse

from lessor_server.http_edge.answers import SERVER

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": SERVER,
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


def protect(response: StreamResponse) -> None:
    """Set the headers of every answer."""
    response.headers.update(HEADERS)


def make_page(text: str, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """Return an answer with a page."""
    response = Response(status=status, body=text.encode())
    protect(response)
    response.headers["Content-Type"] = "text/html; charset=utf-8"
    return response


def redirect(path: str) -> Response:
    """Return an answer that leads to a path of the console, by GET."""
    response = Response(status=HTTPStatus.SEE_OTHER)
    protect(response)
    response.headers["Location"] = path
    return response


def page_link(*steps: str, **query: str) -> str:
    """Return the path of a page: each step is quoted, also its slashes; empty parameters are left out.

    >>> page_link("roles", "aws", "reader", done="1")
    '/roles/aws/reader?done=1'
    """
    given = {name: value for name, value in query.items() if value}
    return "/" + "/".join(quote(step, safe="") for step in steps) + (f"?{urlencode(given)}" if given else "")


def lease_link(lease_id: str) -> str:
    """Return the path of a lease's page."""
    return f"/leases/{quote(lease_id, safe='/')}"


def own_path(text: str) -> str:
    """Return ``text`` if it is a path of this site, or the path of the first page.

    Browsers read a backslash as a slash, and drop tabs and line ends (WHATWG URL, section 4.4).
    """
    if not text.startswith("/") or text.startswith("//") or "\\" in text or not text.isprintable():
        return "/"
    parts = urlsplit(text)
    return "/" if parts.scheme or parts.netloc or not text.isascii() else text
