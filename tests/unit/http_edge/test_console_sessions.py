"""Who may use the console: sessions, cookies, CSRF tokens, origins, and headers of every answer."""

from __future__ import annotations

import base64
from urllib.parse import urlencode

import pytest
from aiohttp.web import RequestPayloadError

from lessor_server.http_edge.console.answers import own_path
from lessor_server.http_edge.console.cookies import csrf_token
from lessor_server.http_edge.console.read_form import MAX_SIGN_IN, BadForm, read_form
from lessor_server.http_edge.exchange import credential_of
from tests.support.access import principal
from tests.support.console_browser import HOST, ROOT_TOKEN, browser, request_of_browser
from tests.support.virtual_loop import virtual

FORM = "application/x-www-form-urlencoded"
OWN = {"Origin": f"http://{HOST}"}
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SESSION = "lessor-session"


@virtual
async def test_a_stranger_is_led_to_the_sign_in_and_then_to_the_page_that_was_asked_for() -> None:
    async with browser() as b:
        page = await b.get("/roles?mount=aws")
        assert page.title() == "Sign in – Lessor"
        after = await b.send(page.form("/sign-in"), token=ROOT_TOKEN)
        assert after.title() == "Roles of aws – Lessor"


@virtual
async def test_a_token_that_is_not_known_is_refused_beside_its_field_and_never_shown_again() -> None:
    async with browser() as b:
        page = await b.sign_in("lst_not-known")
        assert page.status == 403
        assert "The token is not known" in page.words()
        assert "lst_not-known" not in page.text
        assert SESSION not in b.cookies


@pytest.mark.parametrize("token", ["", " ", "tök", "a\x00b"])
@virtual
async def test_what_can_be_no_token_is_refused(token: str) -> None:
    async with browser() as b:
        assert (await b.sign_in(token)).status == 403


@virtual
async def test_each_sign_in_has_a_new_session_and_ends_the_one_before() -> None:
    async with browser() as b:
        await b.sign_in()
        first = b.cookies[SESSION]
        await b.sign_in()
        assert b.cookies[SESSION] != first
        assert b.sessions.ended == [first]


@virtual
async def test_a_session_that_was_planted_is_not_used_after_the_sign_in() -> None:
    async with browser() as b:
        b.cookies |= {SESSION: "planted", "lessor-form": "planted-too"}
        await b.sign_in()
        assert b.cookies[SESSION] not in ("planted", "planted-too")
        assert "planted" in b.sessions.ended


@virtual
async def test_the_sign_in_form_has_a_cookie_of_its_own() -> None:
    """A link of another site opens the sign-in without the session's cookie, which must survive that."""
    async with browser() as b:
        await b.sign_in()
        session = b.cookies.pop(SESSION)
        seen = await b.ask("GET", "/sign-in")
        assert SESSION not in seen.set_cookies
        b.cookies[SESSION] = session
        assert (await b.get("/engines")).title() == "Engines – Lessor"


@virtual
async def test_signing_out_ends_the_session_and_its_cookie() -> None:
    async with browser() as b:
        page = await b.sign_in()
        before = dict(b.cookies)
        after = await b.send(page.form("/sign-out"))
        assert after.title() == "Sign in – Lessor"
        assert SESSION not in b.cookies
        b.cookies |= before
        assert (await b.get("/engines")).title() == "Sign in – Lessor"


@pytest.mark.parametrize(("tls", "prefix"), [(False, ""), (True, "__Host-")])
@virtual
async def test_cookies_are_for_this_site_and_no_script(tls: bool, prefix: str) -> None:
    async with browser(tls=tls) as b:
        form = (await b.get("/sign-in")).form("/sign-in")
        scheme = "https" if tls else "http"
        data = urlencode({**form.fields, "token": ROOT_TOKEN}).encode()
        seen = await b.ask("POST", "/sign-in", data, {"Origin": f"{scheme}://{HOST}"})
        cookie = seen.set_cookies[f"{prefix}lessor-session"]
        assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == ("True", "Strict", "/")
        assert cookie["secure"] == str(tls)
        assert cookie["domain"] == ""


@virtual
async def test_a_session_cookie_that_is_sent_twice_is_not_used() -> None:
    async with browser() as b:
        await b.sign_in()
        good = f"{SESSION}={b.cookies[SESSION]}"
        seen = await b.ask("GET", "/engines", headers={"Cookie": f"{good}; {SESSION}=other"})
        assert seen.location.startswith("/sign-in")


@pytest.mark.parametrize("name", ["X-Vault-Token", "Authorization"])
@virtual
async def test_a_token_in_a_header_has_no_effect(name: str) -> None:
    async with browser() as b:
        value = ROOT_TOKEN if name == "X-Vault-Token" else f"Bearer {ROOT_TOKEN}"
        seen = await b.ask("GET", "/engines", headers={name: value})
        assert seen.location.startswith("/sign-in")


@virtual
async def test_calls_are_those_of_the_session_whatever_the_headers_say() -> None:
    async with browser() as b:
        b.knows("alice-token", principal("alice"))
        await b.sign_in("alice-token")
        seen = await b.ask("GET", "/whoami", headers={"X-Vault-Token": ROOT_TOKEN})
        assert "alice" in seen.words()
        assert "root" not in seen.words()


@virtual
async def test_a_form_without_the_token_of_its_session_is_refused() -> None:
    async with browser() as b:
        await b.sign_in()
        for token in ("", "0" * 64, csrf_token("another-session")):
            data = urlencode({"csrf": token, "mount": "stolen"}).encode()
            seen = await b.ask("POST", "/new/engine", data, OWN)
            assert seen.status == 403
        assert list(await b.world.engine.mounts.list("", 10)) == [await b.world.engine.mounts.get("aws")]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.test"},
        {"Origin": "null"},
        {"Origin": f"http://{HOST}.evil.test"},
        {"Origin": "http://console.test:8201"},
        {"Origin": f"ftp://{HOST}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@virtual
async def test_a_form_of_another_origin_is_refused(headers: dict[str, str]) -> None:
    async with browser() as b:
        page = await b.sign_in()
        data = urlencode(page.form("/sign-out").fields).encode()
        seen = await b.ask("POST", "/sign-out", data, headers)
        assert seen.status == 403
        assert SESSION in b.cookies


@virtual
async def test_under_tls_a_form_of_the_same_host_in_the_clear_is_refused() -> None:
    async with browser(tls=True) as b:
        form = (await b.get("/sign-in")).form("/sign-in")
        data = urlencode({**form.fields, "token": ROOT_TOKEN}).encode()
        assert (await b.ask("POST", "/sign-in", data, OWN)).status == 403


@virtual
async def test_the_sign_in_needs_its_own_csrf_token() -> None:
    async with browser() as b:
        form = (await b.get("/sign-in")).form("/sign-in")
        data = urlencode({**form.fields, "token": ROOT_TOKEN}).encode()
        b.cookies.clear()
        assert (await b.ask("POST", "/sign-in", data, OWN)).status == 403


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"a=1", "text/plain", 415),
        (b"a=1", "multipart/form-data; boundary=x", 415),
        (b"{}", "application/json", 415),
        (b"a=" + b"x" * (300 << 10), FORM, 413),
        (b"a=%ff", FORM, 400),
        (b"a=\xff", FORM, 400),
        (b"a=1&a=2", FORM, 400),
        (b"&".join(b"f%d=1" % number for number in range(100)), FORM, 400),
    ],
)
@virtual
async def test_a_body_that_is_not_a_bounded_form_is_refused(body: bytes, kind: str, status: int) -> None:
    async with browser() as b:
        await b.sign_in()
        seen = await b.ask("POST", "/new/engine", body, {**OWN, "Content-Type": kind})
        assert seen.status == status


@virtual
async def test_a_stranger_may_send_only_as_much_as_a_token_has() -> None:
    async with browser() as b:
        await b.get("/sign-in")
        assert (await b.ask("POST", "/sign-in", b"token=" + b"x" * (40 << 10), OWN)).status == 413


@virtual
async def test_a_form_whose_body_is_malformed_is_refused_and_not_an_unexpected_error() -> None:
    request = request_of_browser("POST", "/sign-in", b"", {"Content-Type": FORM})
    request.content.set_exception(RequestPayloadError("a chunk without its size"))
    with pytest.raises(BadForm, match=r"the form is not valid HTTP/1\.1") as refused:
        await read_form(request, MAX_SIGN_IN)
    assert refused.value.status == 400


@virtual
async def test_a_compressed_form_is_refused() -> None:
    headers = {"Content-Type": FORM, "Content-Encoding": "gzip"}
    with pytest.raises(BadForm, match="the form is compressed"):
        await read_form(request_of_browser("POST", "/sign-in", b"a=1", headers), MAX_SIGN_IN)


@virtual
async def test_a_link_of_another_site_is_followed_once_more_from_a_page_of_ours() -> None:
    """The browser then sends the cookie that SameSite=Strict has kept back."""
    async with browser() as b:
        seen = await b.ask("GET", "/leases?prefix=aws/", headers={"Sec-Fetch-Site": "cross-site"})
        assert seen.headers["Refresh"] == "0; url=/leases?prefix=aws/"
        assert seen.set_cookies == {}


@pytest.mark.parametrize(
    "path",
    [
        "//evil.test",
        "/\\evil.test",
        "https://evil.test",
        "javascript:alert(1)",
        "/\t/evil.test",
        "/\n/evil.test",
        "evil",
        "",
        "///evil.test",
        "\\\\evil.test",
    ],
)
@virtual
async def test_a_sign_in_leads_nowhere_else(path: str) -> None:
    async with browser() as b:
        page = await b.get("/sign-in?" + urlencode({"next": path}))
        form = page.form("/sign-in")
        assert form.fields["next"] == "/"
        data = urlencode({**form.fields, "token": ROOT_TOKEN, "next": path}).encode()
        seen = await b.ask("POST", "/sign-in", data, OWN)
        assert (seen.status, seen.location) == (303, "/")


def test_a_path_with_a_query_is_kept() -> None:
    assert own_path("/leases?prefix=aws/creds/app/&state=all") == "/leases?prefix=aws/creds/app/&state=all"


@pytest.mark.parametrize("path", ["/", "/sign-in", "/engines", "/nope", "/static/console.css", "/whoami"])
@virtual
async def test_every_answer_has_the_headers_that_protect_it(path: str) -> None:
    async with browser() as b:
        for _ in range(2):
            seen = await b.ask("GET", path)
            assert seen.headers["Content-Security-Policy"] == CSP
            assert seen.headers["X-Content-Type-Options"] == "nosniff"
            assert seen.headers["Referrer-Policy"] == "same-origin"
            assert seen.headers["Cache-Control"] == "no-store"
            await b.sign_in()


@virtual
async def test_a_link_of_the_command_line_becomes_a_session_by_a_form_and_once() -> None:
    async with browser() as b:
        b.sessions.links["code-1"] = ROOT_TOKEN
        page = await b.get("/sign-in/link/code-1")
        assert "signs you in as root" in page.words()
        assert SESSION not in b.cookies
        after = await b.send(page.form("/sign-in/link"))
        assert after.title() == "Engines – Lessor"
        again = await b.send((await b.get("/sign-in/link/code-1")).form("/sign-in/link"))
        assert again.status == 403


@virtual
async def test_a_session_that_has_ended_leads_to_the_sign_in() -> None:
    async with browser() as b:
        await b.sign_in()
        b.known.pop(b.cookies[SESSION])
        page = await b.get("/engines")
        assert page.title() == "Sign in – Lessor"
        assert SESSION not in b.cookies


@pytest.mark.parametrize(
    ("method", "path"), [("DELETE", "/engines"), ("GET", "/sign-out"), ("POST", "/whoami")]
)
@virtual
async def test_another_verb_is_refused(method: str, path: str) -> None:
    async with browser() as b:
        await b.sign_in()
        seen = await b.ask(method, path, headers=OWN)
        assert seen.status == 405
        assert seen.headers["Allow"]


@virtual
async def test_a_cookie_is_no_credential_below_v1() -> None:
    async with browser() as b:
        await b.sign_in()
        cookie = f"{SESSION}={b.cookies[SESSION]}"
        request = request_of_browser("GET", "/v1/auth/token/lookup-self", b"", {"Cookie": cookie})
        assert credential_of(request).authorization == ()
        assert not b.face.owns("/v1/auth/token/lookup-self")


@virtual
async def test_a_note_that_this_session_did_not_set_is_not_shown() -> None:
    async with browser() as b:
        await b.sign_in()
        page = await b.send((await b.get("/new/engine")).form("/new/engine"), mount="first")
        assert "Enabled first" in page.words()
        assert "Enabled first" not in (await b.get("/engines/first")).words()
        body = base64.urlsafe_b64encode(b'[["done", "You have won"]]').decode().rstrip("=")
        for signature in ("", "0" * 64):
            b.cookies["lessor-note"] = f"{signature}.{body}"
            assert "You have won" not in (await b.get("/engines")).words()
