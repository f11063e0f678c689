"""Provides the stand-in for AWS to its tests."""

from tests.support.standin_fixtures import aws, url

__all__ = ["aws", "url"]
