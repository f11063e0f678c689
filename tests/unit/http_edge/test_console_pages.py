"""The pages of the console: what they show, what forms do, and how problems are shown."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from datetime import timedelta
from urllib.parse import quote

import pytest
from aiohttp.web import StreamResponse

from lessor_server.http_edge.console.routes import ConsoleRoute
from lessor_server.http_edge.console.visit import Visit
from tests.support import builders
from tests.support.access import principal
from tests.support.console_browser import ROOT_TOKEN, Browser, browser, paths
from tests.support.iam_faults import Fault, Kind
from tests.support.virtual_loop import virtual

CLOSING = "</textarea><script>alert(1)</script>"
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>"
POLICY = """{
  "Version": "2023-11-12",
  "Statement": [
    {"Effect": "Allow", "Action": "a", "Resource": "*"}
  ]
}"""
GOOD_POLICY = POLICY.replace("2023-11-12", "2012-10-17").replace('"a"', '"ec2:DescribeRegions"')


async def issue(b: Browser, **typed: str) -> str:
    """Issue a credential on its page; return the lease id."""
    page = await b.send((await b.get("/issue")).form("/issue"), **{"role": "app", **typed})
    assert page.title() == "Credential issued – Lessor", page.words()
    return next(
        one["href"].removeprefix("/leases/") for one in page.elements("a") if "/creds/" in one["href"]
    )


@virtual
async def test_every_page_has_one_heading_a_title_of_its_own_and_the_same_navigation() -> None:
    async with browser() as b:
        await b.sign_in()
        lease_id = await issue(b)
        titles = set()
        for path in paths():
            suffix = {"/leases/revoke-prefix": "?prefix=aws/", "/leases/abandon": f"?lease_id={lease_id}"}
            suffix["/leases/revoking"] = "?prefix=aws/&of=1"
            if "static-roles/{" in path or "/static-roles/aws/" in path:
                continue
            page = await b.get(path.replace("LEASE", lease_id) + suffix.get(path, ""))
            assert page.status == 200, (path, page.words())
            assert len(page.elements("h1")) == 1
            assert page.text.count("<nav") == 1
            titles.add(page.title())
        assert len(titles) >= 18


@virtual
async def test_the_navigation_is_in_the_order_of_the_tutorial() -> None:
    async with browser() as b:
        page = await b.sign_in()
        nav = page.text.partition("<nav")[2].partition("</nav>")[0]
        assert re.findall(r">([^<\n]+)</a>", nav) == [
            *("Engines", "Roles", "Issue", "Leases", "Stuck", "Static roles", "Events", "Who am I")
        ]


@virtual
async def test_each_control_has_a_label() -> None:
    async with browser() as b:
        await b.sign_in()
        for path in ("/new/engine", "/engines/aws", "/engines/aws/root", "/new/role", "/issue", "/leases"):
            page = await b.get(path)
            labels = {one.get("for") for one in page.elements("label")}
            for tag in ("input", "select", "textarea"):
                for control in page.elements(tag):
                    hidden = control.get("type") in ("hidden", "checkbox")  # a checkbox is inside its label
                    assert hidden or control["id"] in labels, (path, control)


@virtual
async def test_an_engine_is_enabled_tuned_and_disabled_by_its_name() -> None:
    async with browser() as b:
        await b.sign_in()
        form = (await b.get("/new/engine")).form("/new/engine")
        page = await b.send(form, mount="team-b", max_lease_ttl="1h", default_lease_ttl="2h")
        assert page.status == 400
        assert page.elements("input")[2]["value"] == "team-b"
        page = await b.send(page.form("/new/engine"), default_lease_ttl="30m")
        assert page.title() == "Engine team-b – Lessor"
        assert "Enabled team-b" in page.words()
        page = await b.send(page.form("/engines/team-b/tune"), max_users="7")
        assert (await b.world.engine.mounts.get("team-b")).max_users == 7
        form = (await b.get("/engines/team-b/disable")).form("/engines/team-b/disable")
        assert (await b.send(form, confirm="team")).status == 400
        page = await b.send(form, confirm="team-b")
        assert "Disabling team-b" in page.words()


@virtual
async def test_the_secret_of_a_root_is_written_and_never_shown() -> None:
    async with browser() as b:
        await b.sign_in()
        page = await b.get("/engines/aws/root")
        form = page.form("/engines/aws/root")
        assert form.fields["secret_key"] == ""
        typed = {"access_key": "AKIAIOSFODNN7EXAMPLE", "secret_key": "wJalrXUtnFEMIbPxRfiCYEXAMPLEKEY"}
        page = await b.send(form, **typed, rotation_period="1h", rotation_schedule="* * * * *")
        assert page.status == 400
        assert typed["secret_key"] not in page.text
        assert page.form("/engines/aws/root").fields["access_key"] == typed["access_key"]


@virtual
async def test_a_root_keeps_its_secret_if_none_is_typed() -> None:
    async with browser() as b:
        await b.sign_in()
        form = (await b.get("/engines/aws/root")).form("/engines/aws/root")
        page = await b.send(form, region="eu-central-1")
        assert "Saved the root of aws" in page.words()
        stored = await b.world.engine.mounts.get_root("aws")
        assert stored.config.region == "eu-central-1"
        await issue(b)


@virtual
async def test_a_root_is_checked() -> None:
    async with browser() as b:
        page = await b.sign_in()
        page = await b.send((await b.get("/engines/aws")).form("/engines/aws/root/check"))
        assert page.title() == "Check of the root of aws – Lessor"
        assert "iam:CreateUser" in page.words()


@virtual
async def test_the_violations_of_a_role_are_beside_their_fields_and_lines_and_what_was_typed_stays() -> None:
    async with browser() as b:
        await b.sign_in()
        form = (await b.get("/new/role")).form("/new/role/aws")
        typed = {"name": "reader", "policy_document": POLICY, "max_leases": "5"}
        page = await b.send(form, **typed)
        assert page.status == 400
        assert page.title().startswith("Error: ")
        problems = re.findall(r'id="problem-policy_document-\d"[^>]*>(.*?)</p>', page.text, re.S)
        text = " ".join(html.unescape(re.sub(r"<[^>]+>", "", one)) for one in problems)
        assert "Line 2" in text
        assert "IAM does not know the version" in text
        assert "Line 4" in text
        fields = page.form("/new/role/aws").fields
        assert {name: fields[name] for name in typed} == typed
        area = next(one for one in page.elements("textarea") if one["name"] == "policy_document")
        assert area["aria-invalid"] == "true"
        assert "problem-policy_document-1" in area["aria-describedby"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"Version": ', "is not valid JSON"),
        ("[]", "is not a JSON object"),
        ('{"a": 1, "a": 2}', 'has the key "a" twice'),
        ('{"a": NaN}', "not valid JSON"),
        ("[" * 10_000, "nested deeper"),
        ('{"a": ' + "9" * 5000 + "}", "can't represent exactly"),
    ],
)
@virtual
async def test_a_policy_that_is_not_json_is_a_problem_of_its_field(text: str, problem: str) -> None:
    async with browser() as b:
        await b.sign_in()
        form = (await b.get("/new/role")).form("/new/role/aws")
        page = await b.send(form, name="reader", policy_document=text)
        assert page.status == 400
        assert problem in page.words()


@virtual
async def test_a_policy_with_many_mistakes_shows_the_first_of_them() -> None:
    async with browser() as b:
        await b.sign_in()
        form = (await b.get("/new/role")).form("/new/role/aws")
        policy = json.dumps({"Version": "2012-10-17", "Statement": [{"x": 1}] * 90})
        page = await b.send(form, name="reader", policy_document=policy)
        assert page.status == 400
        assert page.text.count('id="problem-policy_document-') == 20
        assert "more; fix these first" in page.words()
        typed = await b.send(replace(form, action="/policy/check"), policy_document=policy)
        assert len(json.loads(typed.text)["problems"]) == 20


@virtual
async def test_a_role_is_created_changed_checked_and_deleted() -> None:
    async with browser() as b:
        await b.sign_in()
        form = (await b.get("/new/role?template=describe")).form("/new/role/aws")
        page = await b.send(form, name="reader")
        assert page.title() == "Role aws/reader – Lessor"
        assert "Saved aws/reader" in page.words()
        page = await b.send(page.form("/roles/aws/reader"), max_leases="9", max_ttl="")
        stored = await b.world.engine.roles.get("aws", "reader")
        assert (stored.max_leases, stored.max_ttl, stored.default_ttl) == (9, None, timedelta(hours=1))
        checked = page.form("/roles/aws/reader")
        page = await b.send(replace(checked, action="/roles/aws/reader/check"), max_leases="10")
        assert "The role is valid" in page.words()
        assert (await b.world.engine.roles.get("aws", "reader")).max_leases == 9
        page = await b.send((await b.get("/roles/aws/reader/delete")).form("/roles/aws/reader/delete"))
        assert "Deleted aws/reader" in page.words()


@virtual
async def test_a_new_role_does_not_replace_one_that_exists() -> None:
    async with browser() as b:
        await b.sign_in()
        form = (await b.get("/new/role?template=describe")).form("/new/role/aws")
        page = await b.send(form, name="app")
        assert page.status == 400
        assert "the name of a role that exists" in page.words()


@virtual
async def test_two_people_who_change_one_role_do_not_overwrite_each_other() -> None:
    async with browser() as b:
        await b.sign_in()
        form = (await b.get("/roles/aws/app")).form("/roles/aws/app")
        await b.send(form, max_leases="3")
        page = await b.send(form, max_leases="4")
        assert page.status == 409
        assert (await b.world.engine.roles.get("aws", "app")).max_leases == 3


@virtual
async def test_names_that_are_steps_of_paths_are_names_too() -> None:
    """No page's path hides an engine or a role."""
    async with browser() as b:
        await b.sign_in()
        for name in ("new", "check", "delete", "root", "disable"):
            form = (await b.get("/new/role?template=describe")).form("/new/role/aws")
            await b.send(form, name=name)
            page = await b.get(f"/roles/aws/{name}")
            assert page.title() == f"Role aws/{name} – Lessor"
            await b.send((await b.get("/new/engine")).form("/new/engine"), mount=name)
            assert (await b.get(f"/engines/{name}")).title() == f"Engine {name} – Lessor"


@virtual
async def test_a_policy_is_checked_as_it_is_typed_and_aws_is_not_asked() -> None:
    async with browser() as b:
        await b.sign_in()
        form = (await b.get("/new/role")).form("/new/role/aws")
        b.world.aws.sent.clear()
        sent = replace(form, action="/policy/check")
        seen = await b.send(sent, policy_document=POLICY)
        assert seen.headers["Content-Type"] == "application/json"
        assert '"line": 2' in seen.text
        assert (await b.send(sent, policy_document=GOOD_POLICY)).text == '{"problems": []}'
        assert b.world.aws.sent == []


@virtual
async def test_an_issued_credential_is_shown_once_with_its_reason_stored() -> None:
    async with browser() as b:
        await b.sign_in()
        form = (await b.get("/issue?role=app")).form("/issue")
        page = await b.send(form, reason="ticket 4711", ttl="20m")
        secrets = re.findall(r'id="copy-secret"[^>]*>([^<]+)<', page.text)
        assert len(secrets) == 1
        assert f"export AWS_SECRET_ACCESS_KEY='{secrets[0]}'" in html.unescape(page.text)
        lease_id = next(one["href"] for one in page.elements("a") if "/creds/" in one["href"])
        lease = await b.get(lease_id)
        assert "ticket 4711" in lease.words()
        assert secrets[0] not in lease.text
        again = await b.send(form, reason="ticket 4711", ttl="20m")  # the browser sends the form again
        assert len(b.world.users()) == 1
        assert secrets[0] not in again.text


@virtual
async def test_the_problem_of_a_request_is_beside_its_field() -> None:
    async with browser() as b:
        await b.sign_in()
        form = (await b.get("/issue")).form("/issue")
        page = await b.send(form, role="app", ttl="soon", reason="why\tnot")
        assert page.status == 400
        assert "problem-ttl-1" in page.text
        page = await b.send(form, role="app", ttl="20m", reason="why\tnot")
        assert "problem-reason-1" in page.text
        assert page.form("/issue").fields["reason"] == "why\tnot"


@virtual
async def test_leases_are_found_renewed_and_revoked() -> None:
    async with browser() as b:
        await b.sign_in()
        lease_id = await issue(b, ttl="20m")
        assert lease_id in (await b.get("/leases?prefix=aws/app")).text
        assert (await b.get(f"/leases?prefix={lease_id}")).title() == f"Lease {lease_id} – Lessor"
        page = await b.get(f"/leases/{lease_id}")
        page = await b.send(page.form("/leases/renew"), increment="40m")
        assert "Renewed until" in page.words()
        page = await b.send(page.form("/leases/revoke"))
        assert "Revoked. AWS has acknowledged" in page.words()
        assert lease_id not in (await b.get("/leases")).text
        assert lease_id in (await b.get("/leases?prefix=aws/&state=all")).text


@virtual
async def test_all_leases_under_a_prefix_are_revoked_after_a_question() -> None:
    async with browser() as b:
        await b.sign_in()
        for _ in range(3):
            await issue(b)
        page = await b.get("/leases/revoke-prefix?prefix=aws/app")
        assert "you can see 3" in page.words()
        page = await b.send(page.form("/leases/revoke-prefix"))
        assert "of 3 leases under" in page.words()
        await b.world.until_gone()
        page = await b.get("/leases/revoking?prefix=aws/creds/app/&of=3")
        assert page.title() == "Revoking leases – Lessor"
        assert "Refresh" not in page.headers
        assert "3 of 3 leases" in page.words()


@virtual
async def test_a_stuck_revocation_is_listed_with_what_refuses_it_and_can_be_retried_or_abandoned() -> None:
    async with browser() as b:
        await b.sign_in()
        lease_id = await issue(b)
        b.world.aws.faults.add(Fault(Kind.REFUSE, "DeleteUser"))
        page = await b.send((await b.get(f"/leases/{lease_id}")).form("/leases/revoke"))
        assert "AccessDenied" in page.words()
        await b.world.until(lambda: b.world.store.rows[lease_id].lease.attempts >= 6, 24 * 3600)
        page = await b.get("/stuck")
        assert lease_id in page.text
        assert "Nothing is stuck" not in page.words()
        page = await b.get(f"/leases/abandon?lease_id={lease_id}")
        page = await b.send(page.form("/leases/abandon"))
        assert "Abandoned." in page.words()
        assert "Nothing is stuck" in (await b.get("/stuck")).words()


@virtual
async def test_a_hold_is_an_alert_on_every_page() -> None:
    async with browser() as b:
        page = await b.sign_in()
        assert "alert" not in {one.get("role") for one in page.elements("div")}
        await b.world.engine.expiry.hold("a restored backup")
        for path in ("/engines", "/roles", "/whoami"):
            page = await b.get(path)
            alerts = [one for one in page.elements("div") if one.get("role") == "alert"]
            assert len(alerts) == 1
            assert "a restored backup" in page.words()


@virtual
async def test_what_callers_choose_is_text_on_every_page() -> None:
    async with browser() as b:
        b.knows("hostile-token", replace(b.known[ROOT_TOKEN], name=HOSTILE, labels={HOSTILE: HOSTILE}))
        await b.sign_in("hostile-token")
        form = (await b.get("/new/engine")).form("/new/engine")
        await b.send(form, mount="hostile", description=HOSTILE)
        lease_id = await issue(b, reason=HOSTILE)
        pages = ("/engines", "/engines/hostile", "/leases", f"/leases/{lease_id}", "/whoami", "/events")
        shown = 0
        for path in (*pages, f"/leases?prefix={quote(HOSTILE)}", f"/leases?owner={quote(HOSTILE)}"):
            page = await b.get(path)
            shown += HOSTILE in page.words() or HOSTILE in html.unescape(page.text)
            assert "<script>alert" not in page.text
            assert page.elements("img") == []
            assert page.elements("script") == [{"src": "/static/console.js", "defer": ""}]
        assert shown >= 6
        allowed = {"Effect": "Allow", "Action": "s3:*", "Resource": f"arn:aws:s3:::{CLOSING}"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        await b.world.put_role(builders.role("stored", policy_document=policy))
        page = await b.get("/roles/aws/stored")
        assert page.text.count("&lt;/textarea&gt;") == 1
        assert page.elements("script") == [{"src": "/static/console.js", "defer": ""}]
        role = (await b.get("/new/role")).form("/new/role/aws")
        typed = dict.fromkeys((*role.fields, "name"), HOSTILE)
        page = await b.send(role, **{**typed, "csrf": role.fields["csrf"]})
        assert page.status == 400
        assert "<script>alert" not in page.text


@virtual
async def test_a_person_sees_what_its_policies_allow_and_is_refused_the_rest() -> None:
    async with browser() as b:
        b.knows("alice-token", principal("alice", "read aws/creds/app"))
        assert (await b.sign_in("alice-token")).title() == "Issue a credential – Lessor"
        refused = await b.get("/engines")
        assert "Not allowed" in refused.words()
        assert "<nav" in refused.text
        assert (await b.get("/roles")).status == 403
        assert (await b.get("/whoami")).status == 200
        lease_id = await issue(b)
        assert lease_id in (await b.get("/leases?prefix=aws/")).text
        other = (await b.world.issue(owner="bob")).lease.id
        assert other not in (await b.get("/leases?prefix=aws/")).text
        assert (await b.get(f"/leases/{other}")).status in (403, 404)


@virtual
async def test_a_role_that_is_not_usable_stays_the_chosen_one_and_is_refused() -> None:
    async with browser() as b:
        await b.sign_in()
        page = await b.get("/issue?role=nobody")
        assert page.form("/issue").fields["role"] == "nobody"
        page = await b.send(page.form("/issue"))
        assert page.status == 404
        assert "no role 'aws/nobody'" in page.words()


@virtual
async def test_a_missing_object_is_a_page_that_says_so() -> None:
    async with browser() as b:
        await b.sign_in()
        asked = ("/engines/nobody/disable", "/leases/revoke-prefix?prefix=nobody/")
        for path in ("/roles/aws/nobody", "/engines/nobody", "/roles?mount=nobody", "/nope", *asked):
            page = await b.get(path)
            assert page.status == 404, path
        assert (await b.get("/roles/aws/a%2Fb")).status in (400, 404)
        assert (await b.get("/leases/not/a/lease")).status == 400


@virtual
async def test_empty_lists_say_the_next_command() -> None:
    async with browser() as b:
        await b.sign_in()
        await b.send((await b.get("/new/engine")).form("/new/engine"), mount="empty")
        for path, command in (
            ("/roles?mount=empty", "lessor role put"),
            ("/leases?prefix=empty/", "lessor creds"),
            ("/static-roles?mount=empty", "lessor static-role put"),
            ("/stuck", "lessor top"),
        ):
            assert command in (await b.get(path)).words()


@virtual
async def test_an_unexpected_exception_is_a_page_with_a_reference_and_without_its_text() -> None:
    async def fail(_: Visit) -> StreamResponse:
        raise RuntimeError("password=hunter2")

    async with browser(ConsoleRoute("GET", "/broken", fail)) as b:
        await b.sign_in()
        page = await b.get("/broken")
        assert page.status == 500
        assert "ref-1" in page.words()
        assert "hunter2" not in page.text
        assert [where for where, _ in b.notes.reports] == ["console"]
        b.notes.reports.clear()


@virtual
async def test_a_static_role_is_created_shown_rotated_and_deleted() -> None:
    async with browser() as b:
        await b.sign_in()
        b.world.iam.create_user("batch", "/", {})
        form = (await b.get("/new/static-role")).form("/new/static-role/aws")
        page = await b.send(form, name="batch", username="batch", rotation_period="soon")
        assert page.status == 400
        page = await b.send(page.form("/new/static-role/aws"), rotation_period="24h")
        assert page.title() == "Static role aws/batch – Lessor", page.words()
        assert "batch" in (await b.get("/static-roles")).words()
        again = await b.send(form, name="batch", username="other", rotation_period="48h")
        assert (again.status, "that exists" in again.words()) == (400, True)
        shown = await b.send(page.form("/static-roles/aws/batch/key"))
        secret = re.findall(r'id="copy-secret"[^>]*>([^<]+)<', shown.text)
        assert len(secret) == 1
        assert secret[0] not in (await b.get("/static-roles/aws/batch")).text
        page = await b.send(page.form("/static-roles/aws/batch/rotate"))
        assert "Rotated: the key is now" in page.words()
        form = (await b.get("/static-roles/aws/batch/delete")).form("/static-roles/aws/batch/delete")
        assert "Deleted aws/batch" in (await b.send(form)).words()


@virtual
async def test_a_key_that_does_not_reach_the_browser_is_revoked() -> None:
    async with browser() as b:
        await b.sign_in()
        form = (await b.get("/issue")).form("/issue")
        b.is_gone = True
        await b.send(form, role="app")
        assert b.withdrawn == list(b.world.states())
