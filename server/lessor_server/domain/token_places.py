"""The paths at which a root's web identity token may be on the server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DEFAULT_DIRS: Final = (
    "/var/run/secrets/eks.amazonaws.com/serviceaccount",
    "/var/run/secrets/tokens",
)
"""The directories of service account tokens on EKS ("IAM roles for service accounts"), and of tokens
for other audiences in Kubernetes' documentation ("Configure Service Accounts for Pods").
"""


@dataclass(frozen=True, slots=True)
class TokenPlaces:
    """The settings about token files; every path is absolute.

    A token must be below one of ``dirs``, and not in ``data_dir`` or one of ``private_files``, the files that
    the settings name. A root that was stored before ``dirs`` had a default may keep a file outside until 1.0,
    unless the operator has set ``dirs``: then they are ``enforced``.
    """

    dirs: tuple[str, ...] = DEFAULT_DIRS
    enforced: bool = False
    data_dir: str = ""
    private_files: tuple[str, ...] = ()

    def has_name(self, file: str) -> bool:
        """Return whether a path is below one of ``dirs``, without resolving links."""
        return ".." not in file.split("/") and any(_is_below(file, one) for one in self.dirs)

    def may_be_set(self, file: str) -> bool:
        """Return whether SetRoot accepts a path: below ``dirs``, and not private."""
        private = self.data_dir and _is_below(file, self.data_dir)
        return self.has_name(file) and not private and _parts(file) not in map(_parts, self.private_files)

    def is_left_from_before(self, file: str) -> bool:
        """Return whether a stored path is outside, and is still read until 1.0."""
        return not self.enforced and not self.has_name(file)


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part not in ("", "."))


def _is_below(file: str, folder: str) -> bool:
    inner, outer = _parts(file), _parts(folder)
    return len(inner) > len(outer) and inner[: len(outer)] == outer
