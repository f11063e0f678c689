"""The client package: the stubs (``lessor.v1``), a channel, typed errors, and the command line."""

from __future__ import annotations


def __getattr__(name: str) -> str:
    """Return ``__version__``, read from the package's metadata only when it is used, as that is slow."""
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415

        return version("lessor")
    raise AttributeError(name)
