"""Bounds the lists that AWS returns page by page, since an endpoint may answer with pages without end."""

from __future__ import annotations

from typing import Final

from lessor_server.domain.aws.errors import AwsUnknown
from lessor_server.domain.errors.base import AwsAnswer

MAX_PAGES: Final = 200
"""With 1,000 items each, forty times the users that an account may have (IAM quotas)."""


class PageCount:
    """The pages of one list so far."""

    def __init__(self, action: str) -> None:
        """Count the pages of ``action``."""
        self._action = action
        self._count = 0
        self._marker = ""

    def may_go_on(self, marker: str) -> bool:
        """Return whether the page at ``marker`` is neither the one that was just read nor one too many."""
        self._count += 1
        is_new, self._marker = marker != self._marker, marker
        return is_new and self._count < MAX_PAGES

    def endless(self) -> AwsUnknown:
        """Return the error of a list without an end."""
        return AwsUnknown(AwsAnswer(self._action, "UnreadableAnswer", "the list has no end"), sent=True)
