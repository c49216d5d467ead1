"""Defaults that hold on one machine only become what holds on all; nothing but the options is changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Callable

VARIES = "<depends on the machine>"

Plain = Any
"""What JSON can carry from one process to the other."""

Listing = list[tuple[str, list[tuple[Any, list[Any]]]]]
"""As oslo.config's generator has it: [(namespace, [(group, [option])])]."""

FIELDS = ("default", "sample_default")


def table(listing: Listing, neutralize: Callable[[str], str]) -> dict[str, Plain]:
    """Every default of the listing, in words that hold for every machine as far as one can tell from one."""
    return {key: plain(own, neutralize) for key, _, _, own in _defaults(listing)}


def mark(listing: Listing, neutralize: Callable[[str], str], elsewhere: dict[str, Plain]) -> None:
    """Change what is not the same ``elsewhere``, or not in these words.

    The option then has a sample default, which oslo-config-generator tells the reader in its own words.
    """
    for key, option, field, own in list(_defaults(listing)):
        here = plain(own, neutralize)
        told = agreed(here, elsewhere.get(key, here))
        if told == plain(own, str):
            continue
        if getattr(option, "multi", False) and not isinstance(told, list):
            told = [told]
        setattr(option, field, told)
        if option.sample_default is None:
            option.sample_default = told


def _defaults(listing: Listing) -> Iterator[tuple[str, Any, str, Any]]:
    for namespace, groups in listing:
        for group, options in groups:
            for option in options:
                for field in FIELDS:
                    key = "\n".join((namespace, getattr(group, "name", group or ""), option.dest, field))
                    yield key, option, field, getattr(option, field, None)


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
