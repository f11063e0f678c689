"""Values as people write them: what is understood, and what is refused with a mend."""

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
    """Each way of writing means what a person takes it to mean."""
    assert values.duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "h", "1.5h", "30m1h", "-1s", "1 h", "1H", "٣s", "٣", "1e3", "9" * 30])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """Units out of order, parts of a second, foreign digits and absurd sizes are not guessed at."""
    with pytest.raises(InvalidValue):
        values.duration(text)


@given(st.integers(min_value=0, max_value=10**9))
def test_a_written_duration_is_read_back(seconds: int) -> None:
    """What a table shows can be given again."""
    span = timedelta(seconds=seconds)
    assert values.duration(values.written(span)) == span


@pytest.mark.parametrize("source", ['{"a": [1, {"b": null}]}', "@file", "-", {"a": [1, {"b": None}]}])
def test_a_document_comes_from_wherever_it_stands(
    source: str | dict[str, values.JsonValue], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mapping, a text, a file (with an editor's byte order mark) and standard input agree."""
    text = '{"a": [1, {"b": null}]}'
    (tmp_path / "file").write_text("\ufeff" + text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert values.document(source) == {"a": [1, {"b": None}]}


@pytest.mark.parametrize(
    ("text", "told"),
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
def test_a_document_that_could_be_misread_is_refused(text: str, told: str) -> None:
    """Each refusal says what is wrong, a key given twice above all: readers disagree on which one counts."""
    with pytest.raises(InvalidValue, match=told):
        values.document(text)


@pytest.mark.parametrize("text", ["policy.json", "file://policy.json", "{"])
def test_a_document_that_is_not_json_is_refused_with_how_to_name_a_file(text: str, tmp_path: Path) -> None:
    """Other tools take a name, or file://; what was read from a file needs no such advice."""
    with pytest.raises(InvalidValue, match="or @FILE to read it from a file"):
        values.document(text)
    file = tmp_path / "policy.json"
    file.write_text(text)
    with pytest.raises(InvalidValue, match=r"write one JSON object$"):
        values.document(f"@{file}")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are told as such, with the name of the file."""
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidValue, match="bytes is not UTF-8"):
        values.document(f"@{tmp_path / 'bytes'}")


def test_a_policy_is_written_in_the_order_of_iams_grammar_page() -> None:
    """What a person pastes into IAM has its version first; white space is theirs."""
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
    """The line end that an editor adds is no part of the secret."""
    (tmp_path / "key").write_text("not-a-real-key\n", encoding="utf-8")
    assert values.secret(f"@{tmp_path / 'key'}") == "not-a-real-key"
    monkeypatch.setattr("sys.stdin", io.StringIO("not-a-real-key\r\n"))
    assert values.secret("-") == "not-a-real-key"


def test_a_secret_as_an_argument_is_refused_and_not_repeated() -> None:
    """Arguments can be seen by others, and so can error messages."""
    with pytest.raises(InvalidValue) as refused:
        values.secret("not-a-real-key")
    assert "not-a-real-key" not in str(refused.value)


def test_an_empty_secret_is_refused(tmp_path: Path) -> None:
    """A file that was never filled is not taken for a key."""
    (tmp_path / "key").write_text("\n", encoding="utf-8")
    with pytest.raises(InvalidValue, match="is empty"):
        values.secret(f"@{tmp_path / 'key'}")
