"""Checks how values of options are parsed."""

from __future__ import annotations

import io
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessor import values
from lessor.values import InvalidValue


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1h30m", 5400),
        ("90s", 90),
        ("768h", 2_764_800),
        ("3600", 3600),
        ("7d", 604_800),
        ("0", 0),
        (" 5m ", 300),
    ],
)
def test_a_duration_is_read_in_units_or_in_plain_seconds(text: str, seconds: int) -> None:
    assert values.duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "h", "1.5h", "30m1h", "-1s", "1 h", "1H", "٣s", "٣", "1e3", "9" * 30])
def test_a_malformed_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        values.duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(-0.5, "0s"), (-1.2, "-1s"), (-90, "-1m30s"), (-7199, "-1h59m59s")]
)
def test_a_negative_duration_is_written_with_a_sign(seconds: float, text: str) -> None:
    assert values.written(timedelta(seconds=seconds)) == text


@given(st.integers(min_value=0, max_value=10**9))
def test_a_formatted_duration_can_be_parsed(seconds: int) -> None:
    span = timedelta(seconds=seconds)
    assert values.duration(values.written(span)) == span


@pytest.mark.parametrize("source", ['{"a": [1, {"b": null}]}', "@file", "-", {"a": [1, {"b": None}]}])
def test_a_document_may_be_a_mapping_text_file_or_standard_input(
    source: str | dict[str, values.JsonValue], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '{"a": [1, {"b": null}]}'
    (tmp_path / "file").write_text("\ufeff" + text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert values.document(source) == {"a": [1, {"b": None}]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"Effect": "Deny", "Effect": "Allow"}', "'Effect' is given twice"),
        ('{"a": [{"b": 1, "b": 1}]}', "'b' is given twice"),
        ('{"a": 1', "line 1, column 8"),
        ("[]", "not a JSON object"),
        ("", "not valid JSON"),
        ('{"a": NaN}', "NaN is not valid JSON"),
        ('{"a": 9007199254740993}', "write it as a string"),
        ('{"a": ' + "[" * 200_000, "nested too deeply"),
        ("@not-there", "can't be read"),
    ],
)
def test_an_ambiguous_document_is_refused(text: str, expected: str) -> None:
    """Readers disagree on which of two equal keys counts."""
    with pytest.raises(InvalidValue, match=expected):
        values.document(text)


@pytest.mark.parametrize("text", ["policy.json", "file://policy.json", "{"])
def test_a_document_that_is_not_json_is_refused_with_how_to_name_a_file(text: str, tmp_path: Path) -> None:
    """Other tools take a file's name, or file://."""
    with pytest.raises(InvalidValue, match="or @FILE to read it from a file"):
        values.document(text)
    file = tmp_path / "policy.json"
    file.write_text(text)
    with pytest.raises(InvalidValue, match=r"write one JSON object$"):
        values.document(f"@{file}")


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidValue, match="bytes is not UTF-8"):
        values.document(f"@{tmp_path / 'bytes'}")


def test_a_policy_is_written_in_the_order_of_iams_grammar_page() -> None:
    statement: dict[str, values.JsonValue] = {
        "Resource": "*",
        "Condition": {"StringLike": {"aws:b": "1", "aws:a": "2"}},
        "Action": ["s3:Get*"],
        "Effect": "Allow",
        "Sid": "A",
    }
    text = values.policy_text({"Statement": [statement], "Version": "2012-10-17"})
    assert text == (
        '{"Version": "2012-10-17", "Statement": [{"Sid": "A", "Effect": "Allow", "Action": ["s3:Get*"], '
        '"Resource": "*", "Condition": {"StringLike": {"aws:a": "2", "aws:b": "1"}}}]}'
    )
    assert values.policy_text({"Statement": "odd", "A": 1}, indent=1) == '{\n "Statement": "odd",\n "A": 1\n}'


def test_a_secret_is_read_from_a_file_or_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the line end that an editor adds."""
    (tmp_path / "key").write_text("not-a-real-key\n", encoding="utf-8")
    assert values.secret(f"@{tmp_path / 'key'}") == "not-a-real-key"
    monkeypatch.setattr("sys.stdin", io.StringIO("not-a-real-key\r\n"))
    assert values.secret("-") == "not-a-real-key"


def test_a_secret_as_an_argument_is_refused_and_not_repeated() -> None:
    """Other users can see arguments."""
    with pytest.raises(InvalidValue) as refused:
        values.secret("not-a-real-key")
    assert "not-a-real-key" not in str(refused.value)


def test_an_empty_secret_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("\n", encoding="utf-8")
    with pytest.raises(InvalidValue, match="is empty"):
        values.secret(f"@{tmp_path / 'key'}")
