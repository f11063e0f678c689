"""Checks what the callers of one issue get: the same result, each within its own deadline."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from lessor_server.domain import lease as steps
from lessor_server.domain.errors.base import DeadlineExceeded, LessorError, NotFound
from lessor_server.domain.secret import Secret
from lessor_server.engine.issuing.in_flight import InFlightIssue
from lessor_server.engine.issuing.request import Credentials, IssueRequest
from tests.support import builders
from tests.support.virtual_loop import virtual


def issue() -> InFlightIssue:
    """Return an issue without a result."""
    return InFlightIssue(IssueRequest("aws", "app", "alice", None, builders.grant()))


def credentials() -> Credentials:
    """Return the credentials of a lease that has begun."""
    return Credentials(steps.begin(builders.intent(), 1, timedelta(seconds=1)), Secret("s"), "arn")


async def error_of(in_flight: InFlightIssue, until: float) -> LessorError | None:
    """Wait as a caller does; return the error that it gets."""
    try:
        await in_flight.credentials(until)
    except LessorError as error:
        return error
    return None


@virtual
async def test_a_caller_whose_deadline_passes_leaves_the_others_waiting() -> None:
    in_flight, made = issue(), credentials()
    async with asyncio.TaskGroup() as group:
        short = group.create_task(error_of(in_flight, 1.0))
        long = group.create_task(in_flight.credentials(3.0))
        await asyncio.sleep(2)
        assert isinstance(short.result(), DeadlineExceeded)
        in_flight.answer(made)
    assert long.result() is made


@virtual
async def test_a_caller_that_leaves_takes_nothing_from_the_others() -> None:
    in_flight, made = issue(), credentials()
    async with asyncio.TaskGroup() as group:
        left = group.create_task(in_flight.credentials(3.0))
        stays = group.create_task(in_flight.credentials(3.0))
        await asyncio.sleep(1)
        left.cancel()
        in_flight.answer(made)
    assert (left.cancelled(), stays.result()) == (True, made)


@pytest.mark.parametrize("cause", [None, NotFound("role", "aws/app")])
@virtual
async def test_a_caller_that_comes_after_the_result_gets_it(cause: LessorError | None) -> None:
    in_flight = issue()
    if cause is None:
        in_flight.answer(credentials())
    else:
        in_flight.refuse(cause)
    assert await error_of(in_flight, 3.0) is cause


@virtual
async def test_an_error_reaches_each_caller() -> None:
    in_flight, cause = issue(), NotFound("role", "aws/app")
    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(error_of(in_flight, 3.0)) for _ in range(3)]
        await asyncio.sleep(1)
        in_flight.refuse(cause)
    assert [caller.result() for caller in callers] == [cause] * 3


@virtual
async def test_only_credentials_that_no_caller_took_are_undelivered() -> None:
    taken, lost, refused = issue(), issue(), issue()
    for one in (taken, lost):
        assert not one.answered
        one.answer(credentials())
    refused.refuse(NotFound("role", "aws/app"))
    taken.take()
    assert [one.undelivered for one in (taken, lost, refused)] == [False, True, False]
    assert all(one.answered for one in (taken, lost, refused))
