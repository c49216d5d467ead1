"""Every page is reStructuredText without an error, as Sphinx would say when somebody builds the manual."""

import pathlib

import pytest
from docutils import nodes
from docutils.core import publish_doctree
from docutils.parsers.rst import Directive, directives, roles
from docutils.utils import SystemMessage

from tests.pages import TOP

PAGES = [
    *sorted(TOP.glob("*.rst")),
    *sorted((TOP / "docs").glob("*.rst")),
    *sorted(TOP.glob("examples/*/*.rst")),
]


class Toctree(Directive):
    """Sphinx's own; where it leads is another test's."""

    has_content = True
    option_spec = {"maxdepth": directives.nonnegative_int}  # noqa: RUF012 - docutils' way

    def run(self) -> list[nodes.Node]:
        return []


@pytest.fixture(autouse=True)
def sphinx() -> None:
    directives.register_directive("toctree", Toctree)
    roles.register_generic_role("doc", nodes.literal)


def parse(text: str) -> nodes.document:
    """Raises SystemMessage at the first warning."""
    strict = {"report_level": 2, "halt_level": 2, "syntax_highlight": "none", "warning_stream": False}
    return publish_doctree(text, settings_overrides=strict)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_a_page_has_no_error(page: pathlib.Path) -> None:
    assert list(parse(page.read_text(encoding="utf-8")).findall(nodes.title))


@pytest.mark.parametrize(
    "text",
    [
        "===  ===\na    b\n===  ===\nlonger  c\n===  ===\n",  # a cell that is wider than its column
        "A longer title\n======\n",
        "``never closed\n",
        "`a section that does not exist`_\n",
        ".. toctre::\n",
    ],
)
def test_an_error_would_be_found(text: str) -> None:
    with pytest.raises(SystemMessage):
        parse(text)
