"""Gives the tests of the stand-in the stand-in for AWS."""

from tests.support.standin_fixtures import aws, url

__all__ = ["aws", "url"]
