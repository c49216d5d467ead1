"""What one call asks for, and the sample that answers it."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from refresh_agent.errors import ConfigError
from refresh_agent.files import open_regular, reason
from refresh_agent.tools import generator_rc
from refresh_agent.tools.candidates import candidates, excluded_modules, options_in, unused
from refresh_agent.tools.project import Project, normal
from refresh_agent.tools.sampling import Request, Sample, Trouble, sample

FORMATS = ("ini", "yaml", "json", "rst")
"""oslo-config-generator's."""

OPTIONS = "oslo.config.opts"

LEFT_IN = "what it was to leave out may be in the sample"


@dataclass(frozen=True)
class Order:
    """``path`` is where the sample belongs; ``words`` are the arguments that ask for the same again."""

    project: Project
    path: str
    modules: Sequence[str]
    libraries: Sequence[str]
    rc_files: Sequence[str]
    form: str
    python: str
    strict: bool
    words: Sequence[str]


def fresh(order: Order) -> Sample:
    """The sample as the options say it now, with the project's snippets at its end. Raises ConfigError."""
    extras = generator_rc.extras(order.project, order.rc_files, os.environ)
    found = candidates(order.project, extras.excluded)
    content = {
        **_tree(order.project),
        "modules": [*order.modules, *extras.modules],
        "libraries": [*order.libraries, *extras.libraries],
        "candidates": list(found),
        "excluded": excluded_modules(order.project, extras.excluded),
        "format": order.form,
    }
    answer = sample(Request(order.python, extras.environment, content))
    if order.project.package_path is None and not answer.namespaces:
        name, base = order.project.name, order.project.base
        raise ConfigError(
            f"no package {name} is in {base} or its src, and none is installed with entry points of the "
            f"group {OPTIONS}: -p takes the name of the project's package, -b its directory"
        )
    troubles = [_named(order.project, found, each) for each in answer.troubles]
    troubles += [
        Trouble(f"{pattern} excludes nothing", "", "no file of the package has that path", LEFT_IN, "")
        for pattern in unused(order.project, extras.excluded)
    ]
    if not answer.namespaces:
        troubles += _unseen(order.project, found, answer)
    return replace(answer, text=answer.text + _snippets(order), troubles=tuple(troubles))


def _unseen(project: Project, found: Mapping[str, str], answer: Sample) -> list[Trouble]:
    """Options that no import has brought to light: those of a class, or of a function that was not called."""
    told = {trouble.module for trouble in answer.troubles}
    troubles = []
    for module, file in found.items():
        written = options_in(os.path.join(project.base, file))
        names = ", ".join(name for name in written if name not in answer.names)
        if names and module not in told:
            why = "nobody registers them when it is imported"
            outcome = f"missing from the sample: its options {names}"
            troubles.append(
                Trouble(f"{module} has options of which nothing is known", file, why, outcome, module)
            )
    return troubles


def _tree(project: Project) -> dict[str, object]:
    groups = project.entry_points
    sections = (
        "\n".join((f"[{group}]", *(f"{k} = {v}" for k, v in groups[group].items()))) for group in groups
    )
    return {
        "base": project.base,
        "root": project.root,
        "package": project.package,
        "name": project.own_name if _is_whole(project) else project.name,
        "declared_by": project.own_name or os.path.basename(project.base),
        "entry_points": "\n".join(sections),
        "namespaces": _namespaces(project),
    }


def _namespaces(project: Project) -> list[str]:
    """All that a tree declares, or of one package of several, its own."""
    declared = project.entry_points.get(OPTIONS, {})
    if _is_whole(project):
        return sorted(declared)
    return sorted(name for name in declared if re.match(rf"{re.escape(project.package)}[.:]", declared[name]))


def _is_whole(project: Project) -> bool:
    return normal(project.name) == normal(project.own_name)


def _named(project: Project, found: Mapping[str, str], trouble: Trouble) -> Trouble:
    """With the file of a module that cannot be imported, and the options that are written down in it."""
    file = found.get(trouble.module)
    if file is None:
        return trouble
    names = ", ".join(options_in(os.path.join(project.base, file)))
    outcome = f"{trouble.outcome} {names}" if names else trouble.outcome
    return replace(trouble, where=trouble.where or file, outcome=outcome)


def _snippets(order: Order) -> str:
    """generate_sample.sh: ``cat tools/config/*.conf.sample``; they are ini, and go into nothing else."""
    if order.form != "ini":
        return ""
    paths = [
        path for path in order.project.snippets if os.path.realpath(path) != os.path.realpath(order.path)
    ]
    return "".join(_snippet(path) for path in paths)


def _snippet(path: str) -> str:
    try:
        with open_regular(path) as file:
            text = file.read().decode()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {reason(error)}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} cannot be read: it is not UTF-8") from error
    return text if text.endswith("\n") or not text else text + "\n"


def interpreter(given: str | None, environment: Mapping[str, str]) -> str:
    """The one that has the project's packages: as given, or the active virtual environment's, or our own."""
    active = os.path.abspath(os.path.join(environment.get("VIRTUAL_ENV", ""), "bin", "python"))
    if given is None:
        return active if environment.get("VIRTUAL_ENV") and os.access(active, os.X_OK) else sys.executable
    return os.path.abspath(given) if os.sep in given else given
