"""README.rst and docs/ as data: what they show is tried out."""

import pathlib
import re

TOP = pathlib.Path(__file__).resolve().parent.parent
PAGES = (TOP / "README.rst", *sorted((TOP / "docs").glob("*.rst")))

BLOCK = re.compile(
    r"^(?P<indent> *)\.\. code-block:: (?P<language>\w+)\n\n(?P<body>(?:(?P=indent) +.*\n|\n)+)", re.MULTILINE
)
COMMAND = re.compile(r"(?:.*<<'(?P<end>\w+)'\n(?:.*\n)*?(?P=end)\n|.+\n)")


def read(page: pathlib.Path) -> str:
    return page.read_text(encoding="utf-8")


def section(page: pathlib.Path, title: str) -> str:
    """What stands under that title, down to the next one of its kind."""
    _, found, text = read(page).partition(f"\n{title}\n{'=' * len(title)}\n")
    assert found, f"{page.name} has no section {title!r}"
    return re.split(r"^.+\n={3,}$", text, maxsplit=1, flags=re.MULTILINE)[0]


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of that language, without their indentation."""
    found = []
    for match in BLOCK.finditer(text):
        if match["language"] == language:
            lines = match["body"].rstrip().splitlines()
            margin = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
            found.append("".join(f"{line[margin:]}\n" for line in lines))
    return found


def commands(text: str) -> list[str]:
    """Every command of the ``sh`` blocks, each with its here-document."""
    return [match[0] for block in blocks(text, "sh") for match in COMMAND.finditer(block)]
