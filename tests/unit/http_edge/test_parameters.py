"""Checks that parameters are read as Vault's clients write them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from google.protobuf.json_format import MessageToDict
from multidict import MultiDict

from lessor_server.domain.errors.base import Invalid
from lessor_server.http_edge.vault.parameters import Parameters, go_span


def given(**body: object) -> Parameters:
    return Parameters(MultiDict(), body)


def seconds(value: object) -> float | None:
    span = given(x=value).span("x")
    return None if span is None else span.ToMicroseconds() / 1e6


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (3600, 3600),
        ("3600", 3600),
        ("1h30m", 5400),
        ("768h0m0s", 2_764_800),
        ("0s", 0),
        ("0", 0),
        (0, 0),
        ("1.5h", 5400),
        ("500ms", 0.5),
        ("-5m", -300),
        ("1d", 86_400),
        (1.5, 1.5),
        ("", None),
        (None, None),
    ],
)
def test_a_span_is_a_number_or_a_text_of_go(written: object, expected: float | None) -> None:
    assert seconds(written) == expected


@pytest.mark.parametrize(
    "written", ["x", "1x", "h", "1h x", " ", True, [1], {}, float("inf"), 1e305, "9" * 13, "١", 10**30]
)
def test_another_span_is_refused_by_name(written: object) -> None:
    with pytest.raises(Invalid, match=r"x: .* is not a duration; send seconds"):
        given(x=written).span("x")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["a", "b"], ["a", "b"]),
        ("a,b", ["a", "b"]),
        ("a, b,", ["a", "b"]),
        ("", []),
        (None, []),
        ("a", ["a"]),
        ([1], ["1"]),
    ],
)
def test_a_list_is_an_array_or_a_text_with_commas(written: object, expected: list[str]) -> None:
    assert given(x=written).texts("x") == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"a": "b"}, {"a": "b"}),
        ("a=b", {"a": "b"}),
        (["a=b", "c=d=e"], {"a": "b", "c": "d=e"}),
        ("", {}),
        ({"a": 1}, {"a": "1"}),
    ],
)
def test_a_map_is_an_object_or_texts_with_an_equals_sign(written: object, expected: dict[str, str]) -> None:
    assert given(x=written).pairs("x") == expected


@pytest.mark.parametrize("written", [["a"], "a", {"a": []}, [{}]])
def test_another_map_is_refused(written: object) -> None:
    with pytest.raises(Invalid, match="x: "):
        given(x=written).pairs("x")


@pytest.mark.parametrize(
    ("written", "expected"),
    [(True, True), ("false", False), ("1", True), (0, False), (None, False), ("", False)],
)
def test_a_boolean_may_be_a_text(written: object, expected: bool) -> None:
    assert given(x=written).boolean("x") is expected


@pytest.mark.parametrize("written", ["yes", 2, [], {}])
def test_another_boolean_is_refused(written: object) -> None:
    with pytest.raises(Invalid, match="is not a boolean"):
        given(x=written).boolean("x")


@pytest.mark.parametrize(
    ("written", "expected"), [(5, 5), ("5", 5), (5.0, 5), ("-1", -1), ("", 0), (None, 0)]
)
def test_a_number_may_be_a_text(written: object, expected: int) -> None:
    assert given(x=written).number("x") == expected


@pytest.mark.parametrize("written", ["x", 1.5, True, 1 << 40, "9999999999", []])
def test_another_number_is_refused(written: object) -> None:
    with pytest.raises(Invalid, match="x: "):
        given(x=written).number("x")


@pytest.mark.parametrize("written", [{"Version": "1"}, '{"Version": "1"}'])
def test_a_document_is_an_object_or_its_text(written: object) -> None:
    document = given(x=written).document("x")
    assert document is not None
    assert MessageToDict(document) == {"Version": "1"}


@pytest.mark.parametrize("written", ["{", "[]", 5, '{"a": 1, "a": 2}', '{"a":' * 200])
def test_another_document_is_refused_by_name(written: object) -> None:
    with pytest.raises(Invalid, match="x: "):
        given(x=written).document("x")


def test_the_body_wins_over_the_query_and_a_null_member_is_absent() -> None:
    query = MultiDict([("a", "1"), ("b", "2"), ("c", "3"), ("c", "4")])
    parameters = Parameters(query, {"a": "9", "b": None})
    assert parameters.text("a") == "9"
    assert not parameters.has("b")
    assert parameters.texts("c") == ["3", "4"]


def test_parameters_that_nothing_reads_are_warned_of_and_those_without_meaning_are_not() -> None:
    parameters = given(read="x", y=1, x=2, options=None, local=False, seal_wrap=True, name="app")
    parameters.text("read")
    assert parameters.warnings == ["Endpoint ignored these unrecognized parameters: [x y]"]


def test_nested_parameters_are_an_object() -> None:
    assert given(config={"a": "1h"}).nested("config").text("a") == "1h"
    assert given().nested("config").text("a") == ""
    with pytest.raises(Invalid, match="config: is not a JSON object"):
        given(config=[1]).nested("config")


@pytest.mark.parametrize(("span", "text"), [(0, "0s"), (61, "1m1s"), (3600, "1h0m0s"), (5400, "1h30m0s")])
def test_a_span_is_printed_as_go_prints_it(span: int, text: str) -> None:
    assert go_span(span) == text


@pytest.mark.parametrize(
    "use",
    [
        lambda: given(x=["a"] * 1025).texts("x"),
        lambda: given(x=",a" * 1025).texts("x"),
        lambda: given(x={str(n): "a" for n in range(1025)}).pairs("x"),
        lambda: given(x="a=b," * 1025).pairs("x"),
        lambda: given(x={"a": [{"b": ["c"] * 400}] * 400}).document("x"),
        lambda: given(x='{"a": "' + "b" * 70_000 + '"}').document("x"),
        lambda: given(**{str(n): n for n in range(300)}),
    ],
)
def test_what_a_message_could_not_hold_is_refused_before_it_becomes_one(use: Callable[[], object]) -> None:
    with pytest.raises(Invalid, match="send at most"):
        use()
