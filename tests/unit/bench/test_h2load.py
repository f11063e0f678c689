"""What h2load writes is read as what was answered."""

from __future__ import annotations

import pytest
from bench.children import BenchError
from bench.h2load import Target, read

OUTPUT = "traffic: 1.11KB (1140) total, 282B (282) headers (space savings 88.59%), 615B (615) data\n"
LOG = "1000000\t200\t500\n1000200\t200\t1500\n1001000\t200\t2000\n"


def test_rate_and_times_come_from_the_log() -> None:
    served = read(LOG, OUTPUT)
    assert served.seconds == pytest.approx(0.003)
    assert served.rate == pytest.approx(1000)
    assert (served.p50_ms, served.longest_ms) == (1.5, 2.0)
    assert served.p99_ms == pytest.approx(1.99)


def test_a_refusal_of_grpc_has_no_message() -> None:
    """Its status is 200: only the bytes show it."""
    served = read(LOG, OUTPUT)
    assert served.require_all(205) is served
    with pytest.raises(BenchError, match="615 bytes"):
        served.require_all(206)


@pytest.mark.parametrize("status", ["503", "-1"])
def test_a_failed_request_is_found(status: str) -> None:
    with pytest.raises(BenchError, match="1 of 3 requests failed"):
        read(LOG.replace("200\t1500", f"{status}\t1500"), OUTPUT).require_all()


def test_no_answer_at_all_is_an_error() -> None:
    with pytest.raises(BenchError, match="connection refused"):
        read("", "connection refused")


def test_a_message_is_framed_as_grpc_does() -> None:
    target = Target.of_grpc("host:1", "a.B/C", "t", b"abc")
    assert (target.url, target.body) == ("http://host:1/a.B/C", b"\0\0\0\0\3abc")
    assert ("authorization", "Bearer t") in target.headers
