"""Writes the sources of the site to ``build/site-sources``: the pages, with links that hold there.

``make docs`` runs it before zensical. The pages are written for the repository, where they link to files
beside ``docs/``. Of these some become pages, and links to the others lead to the repository's address.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
IMAGES = DOCS / "images"
SOURCES = ROOT / "build" / "site-sources"
REPOSITORY = "https://github.com/lessor-dev/lessor/blob/main"
ALSO = {"README.md": "tutorial.md", "SECURITY.md": "security.md", "CHANGELOG.md": "changelog.md"}
"""Pages outside of ``docs/``, and their names on the site."""
DECISIONS = "decisions/README.md"
_LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
_CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_DIAGRAM = re.compile(r"^```mermaid\n.*?^```\n\n", re.MULTILINE | re.DOTALL)
"""A page has a table with the same as each diagram; the site would load what draws it from elsewhere."""


def pages() -> dict[str, Path]:
    """Return the file of each page by its name on the site."""
    own = {str(path.relative_to(DOCS)): path for path in sorted(DOCS.rglob("*.md"))}
    return own | {name: ROOT / file for file, name in ALSO.items()}


def rewrite(text: str, file: Path, names: dict[Path, str]) -> str:
    """Return the text of a page with links for the site; ``names`` has each page's name by its file."""
    here = Path(names[file])

    def link(found: re.Match[str]) -> str:
        target = (file.parent / found[1]).resolve()
        if target.parent == IMAGES:
            return found[0]
        anchor = found[2] or ""
        if target in names:
            up = "../" * (len(here.parts) - 1)
            return f"]({up}{names[target]}{anchor})"
        return f"]({REPOSITORY}/{target.relative_to(ROOT)}{anchor})"

    text = _DIAGRAM.sub("", text)
    # A name of code may be in the text of a link, but a link is not in code.
    kept = list[str]()

    def keep(code: re.Match[str]) -> str:
        kept.append(code[0])
        return f"\0{len(kept) - 1}\0"

    linked = _LINK.sub(link, _CODE.sub(keep, text))
    return re.sub(r"\0(\d+)\0", lambda found: kept[int(found[1])], linked)


def list_decisions() -> str:
    """Return a list of all decisions: in the repository the folder is one."""
    found = sorted((DOCS / "decisions").glob("[0-9]*.md"))
    titles = (path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ") for path in found)
    lines = (f"- {path.name[:4]}: [{title}]({path.name})" for path, title in zip(found, titles, strict=True))
    return "\n".join(["", "## All decisions", "", *lines, ""])


def main() -> None:
    """Write all pages."""
    shutil.rmtree(SOURCES, ignore_errors=True)
    found = pages()
    names = {path.resolve(): name for name, path in found.items()}
    for name, path in found.items():
        target = SOURCES / name
        target.parent.mkdir(parents=True, exist_ok=True)
        text = rewrite(path.read_text(encoding="utf-8"), path, names)
        if name == DECISIONS:
            text += list_decisions()
        target.write_text(text, encoding="utf-8")
    shutil.copy(DOCS / "site.css", SOURCES / "site.css")
    shutil.copytree(IMAGES, SOURCES / IMAGES.name)


if __name__ == "__main__":
    main()
