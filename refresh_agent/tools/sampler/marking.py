"""Defaults that hold on one machine only become what holds on all; nothing but the options is changed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple

VARIES = "<depends on the machine>"

Plain = Any
"""What JSON can carry from one process to the other."""

Listing = list[tuple[str, list[tuple[Any, list[Any]]]]]
"""As oslo.config's generator has it: [(namespace, [(group, [option])])]."""

TEXTS = ("help", "deprecated_reason", "title")


class Place(NamedTuple):
    """One value of an option: ``field`` of ``owner``, which is the option or its type."""

    key: str
    option: Any
    owner: Any
    field: str

    @property
    def value(self) -> Any:
        return getattr(self.owner, self.field, None)


def table(listing: Listing, neutralize: Callable[[str], str]) -> dict[str, Plain]:
    """Every value of the listing, in words that hold for every machine as far as one can tell from one."""
    return {place.key: plain(place.value, neutralize) for place in _places(listing)}


def mark(listing: Listing, neutralize: Callable[[str], str], elsewhere: dict[str, Plain]) -> list[str]:
    """Change what is not the same ``elsewhere``, or not in these words.

    The option then has a sample default, which oslo-config-generator tells the reader in its own words.
    Returns the names of options that are not known elsewhere.
    """
    _neutralize_texts(listing, neutralize)
    unknown = set()
    for place in _places(listing):
        here = plain(place.value, neutralize)
        if place.key not in elsewhere:
            unknown.add(place.option.dest)
        told = agreed(here, elsewhere.get(place.key, here))
        if told != plain(place.value, str):
            _tell(place, told)
    return sorted(unknown)


def _tell(place: Place, told: Plain) -> None:
    option = place.option
    if getattr(option, "multi", False) and not isinstance(told, list):
        told = [told]
    setattr(place.owner, place.field, told)
    if place.field == "default" and option.sample_default is None:
        option.sample_default = copy.deepcopy(told)  # YAML would write one list for both


def _neutralize_texts(listing: Listing, neutralize: Callable[[str], str]) -> None:
    owners = [owner for _, groups in listing for group, options in groups for owner in (group, *options)]
    for owner in owners:
        for field in TEXTS:
            text = getattr(owner, field, None)
            if isinstance(text, str) and neutralize(text) != text:
                setattr(owner, field, neutralize(text))
        _neutralize_choices(getattr(owner, "type", None), neutralize)


def _neutralize_choices(kind: Any, neutralize: Callable[[str], str]) -> None:
    choices = getattr(kind, "choices", None)
    if isinstance(choices, dict):
        kind.choices = {neutralize(key) if isinstance(key, str) else key: choices[key] for key in choices}


def _places(listing: Listing) -> Iterator[Place]:
    """An option's own sample default comes before its default, which may become one."""
    for namespace, groups in listing:
        for group, options in groups:
            for option in options:
                key = "\n".join((namespace, getattr(group, "name", group or ""), option.dest))
                for field in ("sample_default", "default"):
                    yield Place(f"{key}\n{field}", option, option, field)
                for field in ("min", "max"):
                    yield Place(f"{key}\n{field}", option, option.type, field)


def plain(value: Any, neutralize: Callable[[str], str]) -> Plain:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, dict):
        return {neutralize(str(key)): plain(each, neutralize) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(each, neutralize) for each in value]
    return neutralize(str(value))


def agreed(here: Plain, there: Plain) -> Plain:
    """What both say; where they differ, that it varies. If only their order differs it was a set: sorted."""
    if here == there:
        return here
    if isinstance(here, dict) and isinstance(there, dict) and here.keys() == there.keys():
        return {key: agreed(value, there[key]) for key, value in here.items()}
    if isinstance(here, list) and isinstance(there, list) and len(here) == len(there):
        in_order = sorted(here, key=repr)
        if in_order == sorted(there, key=repr):
            return in_order
        return [agreed(one, other) for one, other in zip(here, there)]
    return VARIES
