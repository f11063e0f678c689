"""Templates of names and labels, and the patterns of certificates that feed them: text with ``{x}`` in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_PLACEHOLDER: Final = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True, slots=True)
class NameTemplate:
    """A parsed text; each part is literal text and the placeholder after it, None at the end of the text.

    Literal texts may be empty. The last part is left out where it would be empty, so the parts of ``{x}`` are
    ``(("", "x"),)``, and those of an empty text are ``()``.
    """

    parts: tuple[tuple[str, str | None], ...]

    @property
    def placeholders(self) -> tuple[str, ...]:
        """Return the names of the placeholders in their order, each as often as it occurs."""
        return tuple(name for _, name in self.parts if name is not None)

    @property
    def head(self) -> str:
        """Return the literal text before the first placeholder: the whole text if there is none."""
        return self.parts[0][0] if self.parts else ""


def parse(text: str) -> NameTemplate:
    """Return the parts of ``text``.

    Raises:
        ValueError: If a brace is stray or nested, or a placeholder is empty; the message is a predicate.
    """
    pieces = _PLACEHOLDER.split(text)
    own, names = pieces[::2], pieces[1::2]
    if any("{}" in piece for piece in own):
        raise ValueError("has a placeholder without a name")
    if any("{" in piece or "}" in piece for piece in own):
        raise ValueError("has a brace that is not part of a placeholder such as {x}")
    parts: list[tuple[str, str | None]] = list(zip(own, names, strict=False))
    return NameTemplate((*parts, (own[-1], None)) if own[-1] else tuple(parts))
