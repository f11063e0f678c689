"""Checks which replicas are named because of their settings."""

from __future__ import annotations

from lessor_server.domain.replica_settings import find_different_settings


def test_equal_settings_name_nobody() -> None:
    same = {"aws.rate": "1", "limits.new_jwts": "2"}
    assert find_different_settings({"a": same, "b": same}) == {"a": (), "b": ()}
    assert find_different_settings({"a": same}) == {"a": ()}


def test_the_replica_that_differs_from_most_is_named() -> None:
    settings = {"a": {"x": "1", "y": "1"}, "b": {"x": "2", "y": "1"}, "c": {"x": "1", "y": "1"}}
    assert find_different_settings(settings) == {"a": (), "b": ("x",), "c": ()}


def test_without_a_majority_all_are_named() -> None:
    assert find_different_settings({"a": {"x": "1"}, "b": {"x": "2"}}) == {"a": ("x",), "b": ("x",)}


def test_a_setting_that_a_version_does_not_know_differs() -> None:
    settings = {"a": {"x": "1"}, "b": {"x": "1"}, "c": {}}
    assert find_different_settings(settings) == {"a": (), "b": (), "c": ("x",)}
