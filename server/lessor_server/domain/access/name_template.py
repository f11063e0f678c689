"""Templates of names and labels, and the patterns of certificates that feed them: text with ``{x}`` in it."""

from __future__ import annotations

from dataclasses import dataclass


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


def parse_template(text: str) -> NameTemplate:
    """Return the parts of ``text``.

    Raises:
        ValueError: If a brace is stray or nested, or a placeholder is empty; the message is a predicate.
    """
    stray = ValueError("has a brace that is not part of a placeholder such as {x}")
    parts: list[tuple[str, str | None]] = []
    *pieces, rest = text.split("}")
    for piece in pieces:
        own, opening, name = piece.partition("{")
        if not opening or "{" in name:
            raise stray
        if not name:
            raise ValueError("has a placeholder without a name")
        parts.append((own, name))
    if "{" in rest:
        raise stray
    return NameTemplate((*parts, (rest, None)) if rest else tuple(parts))
