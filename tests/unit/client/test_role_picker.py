"""Checks the list from which a person chooses a role."""

from __future__ import annotations

import click
import pytest

from lessor.cli.main import run
from lessor.cli.role_picker import MAX_LINES, Choice, Selection

CHOICES = [Choice(name, "IAM_USER") for name in ("admin", "reader", "reader-eu", "deploy")]
UP, DOWN, ENTER, BACKSPACE, ESCAPE = "\x1b[A", "\x1b[B", "\r", "\x7f", "\x1b"


def chosen(*keys: str, choices: list[Choice] = CHOICES) -> str | None:
    """Return what is chosen after these keys."""
    selection = Selection(choices)
    for key in keys:
        selection.press(key)
    return selection.chosen and selection.chosen.name


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ([ENTER], "admin"),
        ([*"read", ENTER], "reader"),
        ([*"EU", ENTER], "reader-eu"),
        ([*"eu read", ENTER], "reader-eu"),
        ([DOWN, ENTER], "reader"),
        ([UP, ENTER], "deploy"),
        ([*"read", DOWN, ENTER], "reader-eu"),
        ([*"readx", BACKSPACE, ENTER], "reader"),
        ([*"readx", "\x15", ENTER], "admin"),
        ([DOWN, DOWN, "d", ENTER], "admin"),
        ([*"nothing", ENTER], None),
        ([*"nothing", DOWN, ENTER], None),
        (["\x00", "\x1b[5~", ENTER], "admin"),
    ],
)
def test_typing_filters_and_enter_chooses(keys: list[str], name: str | None) -> None:
    assert chosen(*keys) == name


@pytest.mark.parametrize("key", [ESCAPE, "\x04"])
def test_the_list_can_be_left(key: str) -> None:
    with pytest.raises(click.Abort):
        chosen("r", key)


def test_the_marked_role_is_always_visible() -> None:
    many = [Choice(f"role{number:03}") for number in range(50)]
    selection = Selection(many)
    for number in range(50):
        lines = selection.lines(80)
        assert sum(line.startswith(">") for line in lines) == 1
        assert any(line.startswith(f"> role{number:03}") for line in lines)
        assert len(lines) == MAX_LINES + 2
        selection.press(DOWN)


def test_no_line_is_wider_than_the_terminal_or_controls_it() -> None:
    selection = Selection([Choice("\x1b[2J" + "x" * 100, "IAM_USER")])
    assert all(len(line) < 40 and line.isprintable() for line in selection.lines(40))


def test_without_a_terminal_a_missing_role_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["creds", "--address", "127.0.0.1:1"]) == 2
    assert "'ROLE'" in capsys.readouterr().err
