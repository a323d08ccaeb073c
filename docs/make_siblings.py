"""Write the table of ImageNet's sibling classes from WordNet 3.0.

    python docs/make_siblings.py DATA_NOUN SYNSETS

DATA_NOUN: the file data.noun of WordNet 3.0; other versions have other offsets and are refused.
SYNSETS: the wnids of the 1,000 classes, one a line, in the order of their numbers; timm has them as
imagenet_synsets.txt. The same files give the same bytes.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

TABLE = Path(__file__).parent.parent / "nmlcli" / "noise" / "imagenet_siblings.tsv"
VERSION = "WordNet 3.0 Copyright"
RULE = """\
Siblings of the 1,000 classes of ImageNet-1K in WordNet 3.0, in the order of the classes' numbers.
A wnid is "n" and the offset of a noun in WordNet 3.0, eight digits. Made by docs/make_siblings.py.

Rule: what a class's hypernym pointers (@ and @i) lead to, directly or not, are its ancestors. Of
those that have at least two of the 1,000 classes below them, `ancestor` is the one with the fewest,
and of several such the one with the smallest wnid. `siblings` are the other classes below it. That b
is a sibling of a does not make a one of b.

The relation of nouns comes from WordNet, which its makers give under these terms:
"""
COLUMNS = ("wnid", "ancestor", "siblings")


def hypernyms(lines: Iterable[str]) -> dict[str, list[str]]:
    """The wnids that each noun of a data.noun points to as its hypernyms, instances included.

    A line: offset, file, type, number of words in hexadecimal, the words with an id each, number of
    pointers, the pointers as symbol, offset, part of speech and place, then `|` and the gloss.
    """
    found: dict[str, list[str]] = {}
    for line in lines:
        if not line.startswith(" "):  # those are the licence
            cells = line.partition(" | ")[0].split()
            start = 4 + 2 * int(cells[3], 16)
            stop = start + 1 + 4 * int(cells[start])
            pointers = zip(cells[start + 1 : stop : 4], cells[start + 2 : stop : 4], strict=True)
            found[f"n{cells[0]}"] = [
                f"n{offset}" for symbol, offset in pointers if symbol in ("@", "@i")
            ]
    return found


def ancestors(wnid: str, parents: Mapping[str, Sequence[str]]) -> set[str]:
    """All nouns that hypernym pointers lead to from this one."""
    found: set[str] = set()
    waiting = list(parents[wnid])
    while waiting:
        parent = waiting.pop()
        if parent not in found:
            found.add(parent)
            waiting += parents[parent]
    return found


def siblings(
    classes: Sequence[str], parents: Mapping[str, Sequence[str]]
) -> list[tuple[str, str, list[str]]]:
    """Class, ancestor and siblings of each class, by RULE. Raises ValueError for one without any."""
    above = {wnid: ancestors(wnid, parents) for wnid in classes}
    below: dict[str, set[str]] = defaultdict(set)
    for wnid in classes:
        for ancestor in above[wnid]:
            below[ancestor].add(wnid)
    rows = []
    for wnid in classes:
        shared = [(len(below[a]), a) for a in above[wnid] if len(below[a]) >= 2]
        if not shared:
            raise ValueError(f"{wnid} has no ancestor in common with another class")
        ancestor = min(shared)[1]
        rows.append((wnid, ancestor, sorted(below[ancestor] - {wnid})))
    return rows


def licence(lines: Iterable[str]) -> list[str]:
    """The licence at the top of a data.noun, without numbers of lines.

    Raises ValueError where it is not that of the version whose offsets the wnids are.
    """
    found = [re.sub(r"^ +\d+ ?", "", line).rstrip() for line in lines if line.startswith(" ")]
    if not any(line.startswith(VERSION) for line in found):
        raise ValueError(f"data.noun does not say {VERSION}")
    return found


def make(lines: Sequence[str], classes: Sequence[str]) -> str:
    """The table as text."""
    comments = [*RULE.splitlines(), "", *licence(lines)]
    head = "".join(f"# {line}".rstrip() + "\n" for line in comments)
    rows = [
        (wnid, ancestor, " ".join(others))
        for wnid, ancestor, others in siblings(classes, hypernyms(lines))
    ]
    return head + "".join("\t".join(row) + "\n" for row in (COLUMNS, *rows))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python docs/make_siblings.py DATA_NOUN SYNSETS")
    nouns, synsets = (Path(name).read_text(encoding="utf-8").splitlines() for name in sys.argv[1:])
    TABLE.write_text(make(nouns, synsets), encoding="utf-8", newline="\n")
