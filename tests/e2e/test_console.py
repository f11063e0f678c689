"""The console in a real browser: the tutorial by mouse, by keyboard and without JavaScript."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from lessor.v1 import system_pb2
from tests.support.certificates import Authority
from tests.support.chromium import Tab, chromium, new_tab
from tests.support.clients import ROOT_KEY, ROOT_SECRET, Lessor
from tests.support.command_line import CommandLine
from tests.support.http_server import serving_http
from tests.support.server_process import ServerProcess, serving
from tests.support.standin_control import StandIn

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.clients,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]

POLICY = """{
  "Version": "2023-11-12",
  "Statement": [{"Effect": "Allow", "Action": "ec2:DescribeRegions", "Resource": "*"}]
}"""
FIXED = POLICY.replace("2023-11-12", "2012-10-17")
HOSTILE = "\"'><img src=x onerror=alert(1)><script>alert(2)</script>"
SIZES = ((360, 740), (1024, 768), (2560, 1440))


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="server")
async def serve_http(tmp_path_factory: pytest.TempPathFactory, aws: StandIn) -> AsyncIterator[ServerProcess]:
    async with serving_http(tmp_path_factory.mktemp("server"), aws) as process:
        yield process


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="browser")
async def run_browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module", name="tab")
async def open_tab(browser: Browser, server: ServerProcess) -> AsyncIterator[Tab]:
    async with new_tab(browser, server.http_url) as tab:
        yield tab


async def sign_in(tab: Tab, token: str) -> None:
    await tab.open("/")
    await tab.page.get_by_label("Token").fill(token)
    await tab.press("Sign in")


async def set_root(tab: Tab, mount: str, aws: StandIn) -> None:
    """Type the root of a stand-in."""
    await tab.open(f"/engines/{mount}/root")
    await tab.page.fill("[name=access_key]", ROOT_KEY)
    await tab.page.fill("[name=secret_key]", ROOT_SECRET)
    await tab.page.get_by_text("Show them").click()
    await tab.page.fill("[name=iam_endpoint]", aws.url)
    await tab.page.fill("[name=sts_endpoint]", aws.url)
    await tab.press("Save")


async def test_the_tutorial_by_mouse(
    tab: Tab, server: ServerProcess, aws: StandIn, numbers: count[int]
) -> None:
    mount = f"team{next(numbers)}"
    await sign_in(tab, server.token)
    await tab.require_heading("Engines")
    await tab.require_accessible()
    await enable_engine(tab, mount, aws)
    await write_role(tab, mount)
    await issue_key(tab)
    await renew_and_revoke(tab, mount)
    for name in ("Stuck", "Static roles", "Who am I"):
        await tab.follow(name)
        await tab.require_accessible()
    await tab.press("Sign out")
    await tab.require_heading("Sign in")
    await tab.require_accessible()


async def enable_engine(tab: Tab, mount: str, aws: StandIn) -> None:
    await tab.press("Enable an engine")
    await tab.page.fill("[name=mount]", mount)
    await tab.page.fill("[name=description]", HOSTILE)
    await tab.press("Enable")
    await tab.require_heading(mount)
    await set_root(tab, mount, aws)
    await tab.require_heading(mount)
    assert ROOT_SECRET not in await tab.page.content()
    await tab.require_accessible()
    await tab.press("Check")
    await tab.require_heading("Check of the root")


async def write_role(tab: Tab, mount: str) -> None:
    """Write a role: with a mistake first, which is shown while it is typed, and at its line."""
    page = tab.page
    await tab.open(f"/roles?mount={mount}")
    await tab.press("New role")
    await page.fill("[name=name]", "reader")
    await page.fill("[name=policy_document]", POLICY)
    await page.get_by_text('IAM does not know the version "2023-11-12"').wait_for()
    await tab.press("Save")
    await page.locator(".summary").wait_for()
    assert (await page.title()).startswith("Error: New role")
    await tab.require_accessible()
    await page.get_by_role("button", name="Line 2").first.click()
    assert '"Version": "2023-11-12"' in await page.evaluate("getSelection().toString()")
    assert await page.input_value("[name=policy_document]") == POLICY
    await page.fill("[name=policy_document]", FIXED)
    await tab.press("Save")
    await tab.require_heading("reader")


async def issue_key(tab: Tab) -> None:
    page = tab.page
    await tab.follow("Issue from it")
    await page.fill("[name=reason]", HOSTILE)
    await page.fill("[name=ttl]", "20m")
    await tab.press("Issue")
    await tab.require_heading("Credential issued")
    await tab.require_accessible()
    secret = await page.locator("#copy-secret").inner_text()
    await page.get_by_role("button", name="Copy").nth(2).wait_for()
    assert await page.get_by_role("button", name="Copy").count() == 3
    await page.reload()
    await tab.require_heading("Issue a credential")
    assert secret not in await page.content()


async def test_an_issued_secret_is_not_shown_to_who_goes_back(
    tab: Tab, server: ServerProcess, lessor: Lessor, mount: str
) -> None:
    await lessor.put_role(mount)
    await sign_in(tab, server.token)
    await tab.open(f"/issue?mount={mount}&role=app")
    await tab.press("Issue")
    await tab.require_heading("Credential issued")
    await tab.page.get_by_role("button", name="Copy the secret access key").wait_for()  # a script adds it
    secret = await tab.page.locator("#copy-secret").inner_text()
    await tab.follow("Leases")
    await tab.page.go_back()
    await tab.require_heading("Issue a credential")
    assert secret not in await tab.page.content()
    await tab.page.go_forward()
    await tab.require_heading("Leases")


async def renew_and_revoke(tab: Tab, mount: str) -> None:
    page = tab.page
    await tab.open(f"/leases?prefix={mount}/")
    assert await page.locator("tbody tr").count() == 1
    assert HOSTILE in await page.locator("tbody").inner_text()
    await page.locator("tbody a").first.click()
    await page.fill("[name=increment]", "30m")
    await tab.press("Renew")
    await page.get_by_text("Renewed until").wait_for()
    await tab.press("Revoke")
    await page.get_by_text("Revoked. AWS has acknowledged").wait_for()
    await tab.require_accessible()


async def test_the_tutorial_by_keyboard(tab: Tab, server: ServerProcess, mount: str) -> None:
    page, keys = tab.page, tab.page.keyboard
    await tab.open(f"/roles?mount={mount}")
    await keys.type(server.token)  # the field has the focus
    await keys.press("Enter")
    await tab.require_heading("Roles")
    await tab.tab_to("New role")
    await keys.press("Space")
    await tab.require_heading("New role")
    await tab.tab_to("Name")
    await keys.type("reader")
    await tab.tab_to("Policy")
    await keys.insert_text(POLICY)
    await tab.tab_to("Save")
    await keys.press("Enter")
    await page.wait_for_url("**/new/role/**")
    await tab.tab_to("Policy")  # the focus begins at the summary of problems
    await tab.tab_to("Policy")
    await keys.press("Control+A")
    await keys.insert_text(FIXED)
    await tab.tab_to("Save")
    await keys.press("Enter")
    await page.get_by_text(f"Saved {mount}/reader").wait_for()
    await tab.tab_to("Issue from it")
    await keys.press("Enter")
    await tab.require_heading("Issue a credential")
    await tab.tab_to("Reason")
    await keys.type("by keyboard")
    await tab.tab_to("Issue")
    await keys.press("Enter")
    await page.get_by_text("Shown once").wait_for()
    await tab.tab_to("Revoke")
    await keys.press("Enter")
    await page.get_by_text("Revoked. AWS has acknowledged").wait_for()
    await tab.tab_to("Sign out")
    await keys.press("Enter")
    await page.wait_for_url("**/sign-in")


async def test_the_tutorial_without_javascript(browser: Browser, server: ServerProcess, mount: str) -> None:
    async with new_tab(browser, server.http_url, script=False) as tab:
        page = tab.page
        await sign_in(tab, server.token)
        await tab.open(f"/new/role?mount={mount}&template=describe")
        await page.fill("[name=name]", "reader")
        await tab.press("Check")
        await page.get_by_text("The role is valid").wait_for()
        await tab.press("Save")
        await tab.follow("Issue from it")
        await tab.press("Issue")
        await page.get_by_text("Shown once").wait_for()
        assert await page.locator("[data-copy]:visible").count() == 0
        await tab.open(f"/leases?prefix={mount}/")
        await page.get_by_role("link", name=f"Revoke all under {mount}/").click()
        await tab.press("Revoke")
        await page.locator("h1", has_text="Revoked").wait_for()
        await tab.open(f"/events?prefix={mount}/")
        await page.get_by_text("issued").first.wait_for()
        await tab.press("Sign out")


async def test_events_appear_as_they_occur(
    tab: Tab, server: ServerProcess, lessor: Lessor, mount: str
) -> None:
    await lessor.put_role(mount)
    await sign_in(tab, server.token)
    await tab.open(f"/events?prefix={mount}/")
    await tab.page.get_by_text("Events appear as they occur").wait_for()
    issued = await lessor.generate(mount)
    event = tab.page.locator("#events li").first
    await event.wait_for()
    assert issued.lease_id in await event.inner_text()
    await hide(tab, hidden=True)
    await tab.page.get_by_text("Paused while the page is hidden").wait_for()
    await hide(tab, hidden=False)
    await tab.page.get_by_text("Events appear as they occur").wait_for()
    await tab.require_accessible()


async def hide(tab: Tab, *, hidden: bool) -> None:
    """Let the page believe that its tab is in the background: a browser without a screen has none there."""
    state = "true" if hidden else "false"
    await tab.page.evaluate(
        f"Object.defineProperty(document, 'hidden', {{value: {state}, configurable: true}});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )


async def test_pages_fit_every_width_in_both_schemes(
    tab: Tab, server: ServerProcess, lessor: Lessor, mount: str
) -> None:
    role = "r" * 64
    await lessor.put_role(mount, role)
    lease_id = (await lessor.generate(mount, role)).lease_id
    await sign_in(tab, server.token)
    deletion = f"/roles/{mount}/{role}/delete"
    lists = (f"/leases?prefix={mount}/", f"/engines/{mount}", f"/events?prefix={mount}/")
    for path in (*lists, f"/roles/{mount}/{role}", deletion, f"/leases/{lease_id}"):
        await tab.open(path)
        for width, height in SIZES:
            await tab.page.set_viewport_size({"width": width, "height": height})
            wide = await tab.page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, (path, width)
    await tab.page.emulate_media(color_scheme="dark")
    for path in (f"/leases?prefix={mount}/", f"/roles/{mount}/{role}"):
        await tab.open(path)
        for width, height in SIZES[:2]:
            await tab.page.set_viewport_size({"width": width, "height": height})
            await tab.require_accessible()


async def test_a_hold_is_an_alert(tab: Tab, server: ServerProcess, lessor: Lessor) -> None:
    await sign_in(tab, server.token)
    await lessor.system.HoldExpiry(system_pb2.HoldExpiryRequest(reason="a restored backup"))
    try:
        await tab.follow("Leases")
        assert "a restored backup" in await tab.page.get_by_role("alert").inner_text()
        await tab.require_accessible()
    finally:
        await lessor.system.ResumeExpiry(system_pb2.ResumeExpiryRequest())


async def test_the_link_of_the_command_line_opens_the_console_once(
    tab: Tab, server: ServerProcess, tmp_path: Path
) -> None:
    lessor = CommandLine(tmp_path, {"LESSOR_ADDR": server.address, "LESSOR_TOKEN": server.token})
    link = (await lessor("ui")).out.strip()
    assert link.startswith(f"{server.http_url}/sign-in/link/")
    await tab.page.goto(link)
    await tab.require_accessible()
    await tab.press("Open the console")
    await tab.require_heading("Engines")
    await tab.press("Sign out")
    await tab.page.goto(link)
    await tab.press("Open the console")
    await tab.page.get_by_text("the link was used before").wait_for()


async def test_under_tls_the_cookie_is_for_this_host_alone(browser: Browser, tmp_path: Path) -> None:
    pair = Authority(tmp_path).sign("server")
    settings = {
        "LESSOR_TLS_CERT_FILE": str(pair.cert),
        "LESSOR_TLS_KEY_FILE": str(pair.key),
        "LESSOR_HTTP_LISTEN": "127.0.0.1:0",
    }
    (folder := tmp_path / "server").mkdir()
    async with (
        serving(folder, settings) as server,
        new_tab(browser, server.http_url, any_authority=True) as tab,
    ):
        assert server.http_url.startswith("https://")
        await sign_in(tab, server.token)
        await tab.require_heading("Engines")
        cookies = await tab.page.context.cookies()
        assert [one["name"] for one in cookies] == ["__Host-lessor-session"]
        assert cookies[0]["secure"]
        assert cookies[0]["httpOnly"]
        assert cookies[0]["sameSite"] == "Strict"
        await tab.press("Sign out")
        await tab.require_heading("Sign in")
        assert [one["name"] for one in await tab.page.context.cookies()] == ["__Host-lessor-form"]
