"""The sample configuration of a project, against oslo-config-generator told the same namespaces.

Ours looks twice, on two machines that it pretends, at the same time; its own interpreter comes on top.
"""

import pathlib
import sys
from collections.abc import Iterator, Sequence

from benchmarks.measure import Figure, medians, quietly
from tools import environments

ROUNDS = 9
SCRIPT = environments.TOP / "tools" / "config" / "generate_sample.sh"


def figures(root: pathlib.Path, agent: pathlib.Path) -> Iterator[Figure]:
    heat = environments.ensure("heat")
    (site,) = (heat / "lib").glob("python3*/site-packages")
    yield _figure(root, heat, site, "heat")
    yield _figure(root, heat, site, "keystone")
    yield _figure(root, agent, environments.TOP, "refresh-agent")


def _figure(root: pathlib.Path, environment: pathlib.Path, base: pathlib.Path, name: str) -> Figure:
    """Of the package ``name`` in ``base``, which is installed in that environment."""
    sample, theirs_file = root / f"{name}.conf.sample", root / f"{name}.conf"
    ours = [
        str(SCRIPT),
        "-b",
        str(base),
        "-p",
        name,
        "-o",
        str(root),
        "--python",
        _program(environment, "python"),
    ]
    variables = {"PYTHON": sys.executable}
    quietly(ours, variables)
    words = [word for namespace in _namespaces(sample.read_text()) for word in ("--namespace", namespace)]
    theirs = [_program(environment, "oslo-config-generator"), *words, "--output-file", str(theirs_file)]
    quietly(theirs)
    if sample.read_text() != theirs_file.read_text():
        raise RuntimeError(f"{name}: the two samples are not the same")
    seen = medians({"ours": lambda: quietly(ours, variables), "theirs": lambda: quietly(theirs)}, ROUNDS)
    return Figure(
        f"sample of {name} / oslo-config-generator",
        seen["ours"] / seen["theirs"],
        None,
        "x",
        f"{seen['ours']:.2f} s / {seen['theirs']:.2f} s, n = {ROUNDS}",
    )


def _program(environment: pathlib.Path, name: str) -> str:
    return str(environment / "bin" / name)


def _namespaces(sample: str) -> Sequence[str]:
    """Those that the sample names."""
    return sorted(
        {line.removeprefix("# From ") for line in sample.splitlines() if line.startswith("# From ")}
    )
