"""What mkdocs cannot know of this repository: pages that lie outside docs/, and links that leave it.

A hook of ``mkdocs.yml``. README, CONTRIBUTING, CHANGELOG and SECURITY become pages, and so does the schema of plans.
Links work as they stand in the repository; one to a file that is not on the site leads to the repository where
``repo_url`` says where that is, and is plain text where nobody has said so yet.
"""

from __future__ import annotations

import logging
import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
"""Files of the repository and the pages that they become."""

_SCHEMA = "onnxprune/pruning/plan.schema.json"
_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s#]+)(#[^)\s]*)?\)")
_ROLE = re.compile(r":(?:py:)?(?:func|class|meth|mod|attr|data|exc):(?=<code>)")
_VALUE = re.compile(r'<h3 id="([\w.]+)"(?:(?!</h3>).)*doc-label-module-attribute', re.DOTALL)
_LOG = logging.getLogger("mkdocs.hooks.site")


def relinked(text: str, source: str, page: str, published: Callable[[str], bool], repository: str | None) -> str:
    """A page with links that work on the site.

    Args:
        text: the Markdown of the page; code blocks stay as they are.
        source: the file of the repository that it comes from, which its links are relative to.
        page: the page that it becomes, relative to docs/.
        published: whether a file, relative to docs/, is on the site.
        repository: where files are shown that are not; None if that is not known.
    """

    def link(match: re.Match[str]) -> str:
        said, target, anchor = match[1], match[2], match[3] or ""
        if ":" in target:
            return match[0]
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        found = PAGES.get(file, file.removeprefix("docs/") if file.startswith("docs/") else None)
        if found is not None and published(found):
            return f"[{said}]({posixpath.relpath(found, posixpath.dirname(page) or '.')}{anchor})"
        if not (ROOT / file).exists():
            return match[0]  # for mkdocs to complain about
        return f"[{said}]({repository.rstrip('/')}/blob/main/{file}{anchor})" if repository else said

    return "".join(part if part.startswith("```") else _LINK.sub(link, part) for part in _FENCE.split(text))


def schema() -> str:
    """The page that shows the schema of plans."""
    text = (ROOT / _SCHEMA).read_text(encoding="utf-8").strip()
    return f"# The schema of plans\n\n[The plan](../plan.md) says what the keys mean.\n\n```json\n{text}\n```\n"


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages whose files lie outside docs/."""
    from mkdocs.structure.files import File

    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    files.append(File.generated(config, "reference/plan_schema.md", content=schema()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Mends the links of a page."""
    uri = page.file.src_uri
    source = next((name for name, becomes in PAGES.items() if becomes == uri), f"docs/{uri}")

    def published(name: str) -> bool:
        file = files.get_file_from_path(name)
        return file is not None and not file.inclusion.is_excluded()

    return relinked(markdown, source, uri, published, config.repo_url)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Takes the roles out of docstrings, which are written for Sphinx and for people.

    A public name that is shown as a value, without the arguments that it takes, is a warning.
    """
    for name in _VALUE.findall(html):
        where = page.file.src_uri
        _LOG.warning("%s shows '%s' as a value; docs/signatures.py has to know how it is made", where, name)
    return _ROLE.sub("", html)
