"""Errors of secrets at rest: sealing keys, and rows that somebody else wrote."""

from __future__ import annotations

from lessor_server.domain.errors.base import ErrorKind, LessorError, RowUnreadable, Unavailable


class RowTampered(RowUnreadable):
    """A row that grants rights is not as Lessor wrote it: it was edited, moved, or put back from a copy."""

    kind = ErrorKind.PRECONDITION
    reason = "ROW_TAMPERED"
    fix = (
        "report it to the operator: somebody else wrote to the database; delete the role or set the root and"
        " write it again, revoke the lease, log in again, or restore a backup"
    )

    def __init__(self, table: str, key: str) -> None:
        """Name the row by its ``table`` and ``key``."""
        super().__init__(table, key, "was edited, or put back from a copy")
        self.message = f"row {key} of {table} was not written by Lessor"
        self.args = (self.message,)


class SealingKeyMismatch(LessorError):
    """The server does not start: its sealing key and its database don't belong together."""

    reason = "SEALING_KEY_MISMATCH"
    fix = (
        "restore the sealing key and lessor.db that belong together; to continue with the current ones,"
        " start once with LESSOR_SEALING_ACCEPT_MISMATCH=true"
    )


class SealingKeyUnusable(LessorError):
    """The sealing key can't be used: the file, variable or KMS key that sealing.key names, or the default."""

    kind = ErrorKind.PRECONDITION
    reason = "SEALING_KEY_UNUSABLE"
    fix = "correct the setting sealing.key (LESSOR_SEALING_KEY), or what it names"


class SealingKeyUnavailable(Unavailable):
    """AWS KMS does not decrypt or encrypt data keys now: no answer, throttling, or the key is disabled."""

    reason = "SEALING_KEY_UNAVAILABLE"
    fix = "call again later; the operator's log says why KMS does not decrypt or encrypt the data keys"
