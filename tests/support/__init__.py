"""Shared parts of the tests: fakes, models and the stand-in for AWS."""
