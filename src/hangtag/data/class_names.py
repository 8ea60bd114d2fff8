"""Class names as one text each, whatever form of data they come from, and a note on those that look alike.

Names that certainly mean the same become one: a different Unicode form of the same letters (NFC and NFD), spaces at the
ends, invisible characters, and 1 and 1.0 where all names are numbers. Names that only look alike, such as Cat and cat,
stay separate classes, and a note says so.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

from hangtag.words import amount, first_few, listed, natural, visible

__all__ = ["clean_name", "joined_names", "look_of", "matching_class"]

_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)
_LOOSE_JOINERS = re.compile("(?<![^\x00-\x7f])[\u200c\u200d]+|[\u200c\u200d]+(?![^\x00-\x7f])")
"""Joiners that join nothing: in emoji and in Persian or Indic words they stand between two other characters."""

_JOINERS = re.compile("[\u200c\u200d\ufe00-\ufe0f]")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")
_WHOLE = re.compile(r"([+-]?[0-9]+)\.0*")
_SAME_LETTERS = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0455\u0458\u03bf\u03b1\u0131\u2018\u2019\u00b4`",
    "aeopcyxisjoai''''",
)  # fmt: skip
"""Cyrillic and Greek letters, and quotation marks, that look like a Latin letter or an apostrophe."""

_BETWEEN = re.compile("(?<=\\w)[\\s_\\-\u2010-\u2015\u2212]+(?=\\w)|(?<=[a-z])[\\s_\\-]*(?=[0-9])")
_COPY = re.compile(r"^copy of |[ -]+copy$| ?\([0-9]+\)$| aug(?:mented)?$")
"""What systems and people add to the name of a copied folder."""

_NO_LABEL = {
    "nan", "none", "null", "na", "n/a", "?", "-", "unlabeled", "unlabelled", "unsorted", "unclassified", "unannotated",
    "undefined", "missing", "todo", "to do", "no label", "not labeled", "not labelled", "new folder",
}  # fmt: skip
"""Names, as `look_of` gives them, that often stand for images without a label."""

_SEPARATORS = re.compile(r"\s*[|;,]\s*")
_MOST_SHOWN = 5


def clean_name(name: str) -> str:
    """A name in NFC, without invisible characters and spaces at the ends; bytes that are not text become escapes.

    >>> clean_name(" cafe\\u0301\\u200b ")
    'café'
    """
    if name.isascii() and name.isprintable():
        return name.strip()
    seen = _LOOSE_JOINERS.sub("", _INVISIBLE.sub("", unicodedata.normalize("NFC", name))).strip()
    return visible(seen or name)


def joined_names(labels: Sequence[str]) -> tuple[list[str], list[str]]:
    """Each label as the name of its class, and notes on names that were joined or look alike.

    >>> joined_names(["1", "1.0", "2"])
    (['1', '1', '2'], ["2 spellings are read as one class: '1', '1.0' (1)"])
    """
    given = dict.fromkeys(labels)  # far fewer than labels
    names = {label: clean_name(label) for label in given}
    names = _as_whole_numbers(names)
    notes = []
    spellings: dict[str, list[str]] = {}
    for label, name in names.items():
        spellings.setdefault(name, []).append(label)
    several = {name: sorted(each) for name, each in spellings.items() if len(each) > 1}
    if several:
        shown = [f"{', '.join(map(_shown, each))} ({name})" for name, each in sorted(several.items())]
        classes = "one class" if len(several) == 1 else f"{len(several):,} classes"
        count = amount(sum(map(len, several.values())), "spelling")
        notes.append(f"{count} are read as {classes}: {first_few(shown, _MOST_SHOWN)}")
    alike: dict[str, list[str]] = {}
    looks = {name: look_of(name) for name in spellings}
    every = set(looks.values())
    for name in sorted(spellings, key=natural):
        original = _COPY.sub("", looks[name])
        alike.setdefault(original if original in every else looks[name], []).append(name)
    groups = [listed([_shown(name) for name in each]) for each in alike.values() if len(each) > 1]
    if groups:
        notes.append(
            f"these class names look alike but are separate classes: {first_few(groups, _MOST_SHOWN)}; "
            "if they mean the same, give them one name"
        )
    return [names[label] for label in labels], notes + _notes_on_meanings(list(spellings))


def _notes_on_meanings(names: Sequence[str]) -> list[str]:
    """Notes on names that may stand for no label, or for several labels."""
    numbers = {name for name in names if re.fullmatch("-?[0-9]+", name)}
    minus = ["-1"] if "-1" in numbers and len(numbers) == len(names) and numbers != {"-1", "1"} else []
    doubtful = [name for name in sorted(names, key=natural) if look_of(name) in _NO_LABEL] + minus
    several = _combinations(names)
    notes = []
    if doubtful:
        shown, verb = first_few([_shown(name) for name in doubtful], _MOST_SHOWN), "is" if len(doubtful) == 1 else "are"
        notes.append(
            f"{shown} {verb} read as {'a class' if len(doubtful) == 1 else 'classes'}; images without a label must be "
            "left out, or their labels left empty"
        )
    if several:
        shown = first_few([_shown(name) for name in sorted(several, key=natural)], 3)
        notes.append(
            f"{amount(len(several), 'class')} may be several labels each: {shown}; each combination is a class"
        )
    return notes


def _combinations(names: Sequence[str]) -> list[str]:
    """Names that consist of others, such as "a|b" beside "a", or that combine a few words in many ways."""
    known = set(names)
    pieces = {name: _SEPARATORS.split(name) for name in names}
    found = [name for name, own in pieces.items() if len(own) > 1 and not known.isdisjoint(own)]
    if found:
        return found
    words = {name: name.split() for name in names}
    several = {name: tuple(sorted(own)) for name, own in words.items() if len(own) > 1}
    orders = Counter(tuple(sorted(own)) for own in {tuple(words[name]) for name in several})
    made = [name for name, own in several.items() if known.issuperset(own) or orders[own] > 1]
    few = 2 * len({word for own in words.values() for word in own}) <= len(names)
    if few and len(set(map(len, words.values()))) > 2:  # "clear", "clear road", "clear road water"
        return list(several)
    return made if len(made) > 1 else []


def matching_class(name: str, class_names: Sequence[str]) -> str | None:
    """The class of exactly this name, or else the one that is the same after `clean_name`; None if there is none."""
    if name in class_names:
        return name
    return next((each for each in class_names if clean_name(each) == clean_name(name)), None)


def _as_whole_numbers(names: Mapping[str, str]) -> dict[str, str]:
    """1.0 as 1, if all names are whole numbers, or if all are numbers and both forms occur."""
    distinct = set(names.values())
    whole = {name: found.group(1) for name in distinct if (found := _WHOLE.fullmatch(name))}
    numbers = all(map(_NUMBER.fullmatch, distinct))
    all_whole = all(name in whole or "." not in name for name in distinct)
    if not (numbers and (all_whole or not distinct.isdisjoint(whole.values()))):
        return dict(names)
    return {label: whole.get(name, name) for label, name in names.items()}


def look_of(name: str) -> str:
    """Equal for names that a reader may take for the same."""
    folded = unicodedata.normalize("NFKC", name).casefold().translate(_SAME_LETTERS)
    folded = _BETWEEN.sub(" ", _INVISIBLE.sub("", _JOINERS.sub("", folded)).strip())
    try:
        return str(float(folded)) if _NUMBER.fullmatch(folded) else folded
    except OverflowError:
        return folded


def _shown(name: str) -> str:
    """A name in quotation marks, with escapes where its spelling would not be seen."""
    folded = name.casefold()
    plain = name.isprintable() and clean_name(name) == name.strip() and folded.translate(_SAME_LETTERS) == folded
    return f"'{name}'" if plain else ascii(name)
