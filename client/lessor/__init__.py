"""Speaks to a Lessor server: the client, its blocking twin, and credentials for AWS sessions."""

from __future__ import annotations

from importlib.metadata import version

__version__ = version("lessor")
