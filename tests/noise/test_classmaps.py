"""Maps of well-known sets against facts from elsewhere, maps from tables, and the table of siblings."""

import hashlib
import importlib.util
import math
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import timm
from hypothesis import given, settings
from hypothesis import strategies as st

from nmlcli.errors import InvalidInput, UsageError
from nmlcli.noise import classmaps
from nmlcli.noise.classmaps import MAPS, read_map
from nmlcli.noise.kinds import NOISES
from nmlcli.noise.terms import Request
from tests.noise.cases import rows_of

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "nmlcli" / "noise" / "imagenet_siblings.tsv"
SYNSETS = Path(timm.__file__).parent / "data" / "_info" / "imagenet_synsets.txt"

# The superclass of each class of CIFAR-100 by number, from the labels that come with its images.
COARSE = np.fromstring(
    """
    4 1 14 8 0 6 7 7 18 3 3 14 9 18 7 11 3 9 7 11 6 11 5 10 7 6 13 15 3 15 0 11 1 10 12 14 16 9 11 5
    5 19 8 8 15 13 14 17 18 10 16 4 17 4 2 0 17 4 18 17 10 3 2 12 12 16 12 1 9 19 2 10 0 1 16 12 9 13
    15 13 16 19 2 4 6 19 5 5 8 19 18 1 2 15 6 0 17 8 14 13
    """,
    dtype=np.int64,
    sep=" ",
).tolist()
# Where some of its names lie in the standard order, among them the neighbours that sort alike.
PLACES = {
    "apple": 0, "aquarium_fish": 1, "baby": 2, "bed": 5, "bee": 6, "beetle": 7, "can": 16, "castle": 17,
    "keyboard": 39, "lamp": 40, "lawn_mower": 41, "man": 46, "maple_tree": 47, "motorcycle": 48,
    "oak_tree": 52, "palm_tree": 56, "pickup_truck": 58, "pine_tree": 59, "plain": 60, "plate": 61,
    "sea": 71, "seal": 72, "sweet_pepper": 83, "willow_tree": 96, "worm": 99,
}  # fmt: skip


def numbered(name, classes=None):
    """A map as numbers, its weights left aside."""
    found = read_map(name, classes or MAPS[name].names())
    return {start: targets.tolist() for start, (targets, _) in found.items()}


def named(name, classes):
    return {
        classes[start]: [classes[t] for t in ends] for start, ends in numbered(name, classes).items()
    }


@pytest.mark.parametrize("name", MAPS)
def test_laws_of_each_map(name):
    names, arrows = MAPS[name].names(), MAPS[name].arrows()

    assert len(set(names)) == len(names)
    assert arrows
    for source, targets in arrows.items():
        assert source in names
        assert targets
        assert len(set(targets)) == len(targets)
        assert set(targets) <= set(names) - {source}
    found = read_map(name, names)
    assert {names[start] for start in found} == set(arrows)
    for start, (targets, weights) in found.items():
        assert targets.dtype == np.int64
        assert weights is None
        assert targets.tolist() == sorted(names.index(target) for target in arrows[names[start]])


@pytest.mark.parametrize("name", MAPS)
def test_classes_by_number_stand_in_the_standard_order(name):
    names = MAPS[name].names()
    digits = sorted(str(place) for place in range(len(names)))  # 0, 1, 10, 11, ...

    by_number = named(name, digits)

    assert by_number.keys() == {str(names.index(source)) for source in MAPS[name].arrows()}
    for source, targets in by_number.items():
        there = MAPS[name].arrows()[names[int(source)]]
        assert {names[int(target)] for target in targets} == set(there)


def test_cifar10_is_that_of_patrini():
    assert numbered("cifar10") == {9: [1], 2: [0], 3: [5], 5: [3], 4: [7]}
    assert MAPS["cifar10"].names()[::9] == ("airplane", "truck")


def test_names_of_cifar100_are_in_their_places():
    names = MAPS["cifar100"].names()
    assert len(names) == 100
    assert {name: names.index(name) for name in PLACES} == PLACES


def test_cifar100_goes_round_each_superclass():
    arrows = numbered("cifar100")

    assert sorted(arrows) == sorted(target for (target,) in arrows.values()) == list(range(100))
    for start, (target,) in arrows.items():
        group = [number for number in range(100) if COARSE[number] == COARSE[start]]
        later = [number for number in group if number > start]
        assert target == (min(later) if later else min(group))


def test_six_arrows_of_a_hundred_stay_in_a_superclass_when_blocks_are_taken_for_them():
    arrows = numbered("cifar100-blocks")

    assert arrows == {i: [i + 1 if i % 5 < 4 else i - 4] for i in range(100)}
    inside = {(start, target) for start, (target,) in arrows.items() if COARSE[start] == COARSE[target]}
    assert inside == {(6, 7), (19, 15), (42, 43), (63, 64), (86, 87), (89, 85)}
    assert "no superclasses" in MAPS["cifar100-blocks"].help


def test_the_table_of_siblings():
    content = TABLE.read_bytes()
    comments = [line for line in content.decode().splitlines() if line.startswith("#")]
    rows = [line.split("\t") for line in content.decode().splitlines() if not line.startswith("#")]

    digest = hashlib.sha256(content).hexdigest()
    assert digest == "15b25c3815dfe985c9280f82c48d44c1be2fcacabc608e74a2c77990be5d3440"
    assert "# WordNet 3.0 Copyright 2006 by Princeton University.  All rights reserved." in comments
    assert rows[0] == ["wnid", "ancestor", "siblings"]
    assert [wnid for wnid, *_ in rows[1:]] == SYNSETS.read_text().split()
    classes = {wnid for wnid, *_ in rows[1:]}
    below = {}
    for wnid, ancestor, siblings in rows[1:]:
        others = siblings.split(" ")
        assert others == sorted(set(others))
        assert set(others) <= classes - {wnid}
        assert below.setdefault(ancestor, {wnid, *others}) == {wnid, *others}


def test_what_is_a_sibling_in_imagenet():
    names = MAPS["imagenet"].names()
    tabby, tiger_cat, persian, siamese, egyptian, goldfish, tench = 281, 282, 283, 284, 285, 1, 0

    arrows = numbered("imagenet")

    assert names[tabby] == "n02123045"
    assert arrows[tabby] == [tiger_cat, persian, siamese, egyptian]
    assert arrows[tench] == [goldfish]
    assert arrows[goldfish] == [tench]
    dogs = range(151, 269)  # all breeds, one after the other
    assert all(set(arrows[dog]) <= set(dogs) for dog in dogs)
    in_cars = {names.index(f"n{wnid}") for wnid in ("02701002", "02930766", "04285008")}
    assert in_cars - {817} <= set(arrows[817])  # the sports car: ambulance, cab


def test_a_part_of_the_classes_keeps_the_arrows_within():
    assert named("cifar10", ["dog", "bird", "cat", "truck"]) == {"cat": ["dog"], "dog": ["cat"]}
    assert named("imagenet", ["n02123394", "n01443537", "n02123045"]) == {
        "n02123045": ["n02123394"], "n02123394": ["n02123045"],
    }  # fmt: skip


def test_targets_are_ascending_in_any_order_of_classes():
    assert numbered("imagenet", ["n02123394", "n02123159", "n02123045"]) == {
        0: [1, 2], 1: [0, 2], 2: [0, 1],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "classes", "message"),
    [
        (
            "cifar10",
            ["frog", "ship"],
            "no arrow between classes of the labels: frog, ship: a table with",
        ),
        (
            "cifar10",
            ["cat", "dgo"],
            "the map cifar10 lacks classes of the labels: dgo: did you mean dog?",
        ),
        (
            "cifar10",
            ["cat", "x1", "x2", "x3", "x4"],
            "labels: x1, x2, x3 and 1 more: a table with columns",
        ),
        ("cifar10", list("012345678"), "labels: 0, 1, 2 and 6 more: a table"),
        ("cifar10", [f"0{place}" for place in range(10)], "labels: 00, 01, 02 and 7 more"),
        ("cifar100", list("0123456789"), "labels: 0, 1, 2 and 7 more"),
        ("cifar100", ["mapletree", "maple_tree"], "labels: mapletree: did you mean maple_tree?"),
        ("imagenet", ["goldfish"], "labels: goldfish: a table"),
        ("imagenet", ["n02123045"], "no arrow between classes of the labels: n02123045"),
    ],
)
def test_classes_that_a_map_does_not_fit(name, classes, message):
    with pytest.raises(InvalidInput) as caught:
        read_map(name, classes)
    assert message in str(caught.value)
    assert caught.value.remedy


TABLES = {
    "m.csv": "to,weight,from\nb,1,a\na,3,c\nc,.5,a\n",
    "m.tsv": "from\tto\tweight\na\tc\t5e-1\nc\ta\t3.0\na\tb\t+1\n",
    "m.jsonl": '{"from": "c", "to": "a", "weight": 3}\n{"from": "a", "to": "b", "weight": 1.0}\n'
    '{"from": "a", "to": "c", "weight": 0.5}\n',
    "map": "from,to,weight\na,b,1\na,c,0.5\nc,a,3\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_a_map_from_a_table(tmp_path, name):
    (tmp_path / name).write_text(TABLES[name])

    found = read_map(str(tmp_path / name), ["c", "b", "a"])

    assert {start: (ends.tolist(), shares.tolist()) for start, (ends, shares) in found.items()} == {
        2: ([0, 1], [0.5, 1.0]), 0: ([2], [3.0]),
    }  # fmt: skip
    assert all((ends.dtype, shares.dtype) == (np.int64, np.float64) for ends, shares in found.values())


def test_a_table_without_weights_takes_all_alike(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"from": 7, "to": 12}\n{"from": 7, "to": 3}\n')

    ((start, (ends, shares)),) = read_map(str(tmp_path / "m.jsonl"), ["12", "3", "7"]).items()

    assert (start, ends.tolist(), shares) == (2, [0, 1], None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "m.csv is empty"),
        ("from,to\n", "m.csv has no rows: each row of a map is an arrow"),
        ("from,two\na,b\n", "m.csv has no column to, but from, two: a map has columns from, to"),
        ("to,weight\na,1\n", "m.csv has no column from, but to, weight: a map has columns"),
        ("from,to,wieght\na,b,1\n", "m.csv has columns that mean nothing: wieght: a map has columns"),
        ("from,to\na,dogg\na,b\n", "names classes that the labels lack: dogg: did you mean dog?"),
        ("from,to\nv,a\nv,w\nx,y\n", "that the labels lack: v, w, x and 1 more: choose from a, b, dog"),
        ("from,to\na,b\nb,b\n", "row 2 leads from b to itself: leave it out"),
        ("from,to\na,b\nb,a\na,b\n", "row 3 leads from a to b once more: keep one"),
        ("from,to,weight\na,b,1\nb,a,0\n", "row 2, column weight: 0 is no weight: weights are numbers"),
        ("from,to,weight\na,b,0.0e9\n", "row 1, column weight: 0.0e9 is no weight"),
        ("from,to,weight\na,b,-1\n", "-1 is no weight"),
        ("from,to,weight\na,b,nan\n", "nan is no weight"),
        ("from,to,weight\na,b,inf\n", "inf is no weight"),
        ("from,to,weight\na,b,1e999\n", "1e999 is no weight"),
        ("from,to,weight\na,b,1_0\n", "1_0 is no weight"),
        ("from,to,weight\na,b,\n", "nothing is no weight"),
        ('from,to\n"a,b\n', "m.csv"),
    ],
)
def test_what_is_no_map(tmp_path, text, message):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(InvalidInput) as caught:
        read_map(str(tmp_path / "m.csv"), ["a", "b", "dog"])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("row", ['{"from": "a"}', '{"from": "a", "to": null}'])
def test_an_arrow_to_nowhere(tmp_path, row):
    (tmp_path / "m.jsonl").write_text('{"from": "a", "to": "b"}\n' + row)
    with pytest.raises(InvalidInput, match="names classes that the labels lack: nothing"):
        read_map(str(tmp_path / "m.jsonl"), ["a", "b"])


def test_a_name_that_is_neither_map_nor_file(tmp_path):
    wrong = "neither a map that comes with nml nor a file"
    with pytest.raises(UsageError, match=f"^cifar-10 is {wrong}: did you mean cifar10?"):
        read_map("cifar-10", ["a", "b"])
    with pytest.raises(
        UsageError, match=f"{wrong}: choose from cifar10, cifar100, cifar100-blocks, im"
    ):
        read_map(str(tmp_path / "zzz.csv"), ["a", "b"])
    with pytest.raises(InvalidInput, match="cannot read"):
        read_map(str(tmp_path), ["a", "b"])


def test_weights_are_followed(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("from,to,weight\nclass 0000,class 0001,1\nclass 0000,class 0002,3\n")
    rows = rows_of(map(str, range(8000)), np.zeros(8000), 3)

    changed = NOISES["asymmetric"].change(rows, Request(Fraction("0.5"), map=str(path)))

    counts = np.bincount(changed.values)
    assert counts[0] == 4000
    assert abs(counts[2] - 3000) < 5 * math.sqrt(4000 * 3 / 16)


def test_the_menu_is_light():
    script = (
        "import sys, nmlcli.noise.classmaps; print({'numpy', 'torch', 'timm'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == "set()\n"


# The generator of the table.


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location("make_siblings", ROOT / "docs" / "make_siblings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LICENCE = ["  1 Do as you like.  ", "  2   ", "  3 WordNet 3.0 Copyright of somebody  "]
ANIMALS = [
    *LICENCE,
    "00000001 03 n 01 thing 0 001 ~ 00000002 n 0000 | all | and more @ 00000009 n 0000",
    "00000002 03 n 02 beast 0 animal 0 002 @ 00000001 n 0000 ~ 00000003 n 0000 | lives",
    "00000003 03 n 01 cat 0 003 + 00000008 v 0101 @ 00000002 n 0000 %p 00000008 n 0000 | purrs",
    "00000004 03 n 01 tabby 0 001 @ 00000003 n 0000 | in stripes",
    "00000005 03 n 01 tiger_cat 0 001 @ 00000003 n 0000 | in stripes too",
    "00000006 03 n 0a "
    + " ".join(f"dog{i:x} {i:x}" for i in range(10))
    + " 001 @ 00000002 n 0000 | barks",
    "00000007 03 n 01 Rex 0 001 @i 00000006 n 0000 | a dog",
    "00000008 03 n 01 car 0 002 @ 00000001 n 0000 #m 00000003 n 0000 | rolls",
]


def test_siblings_of_a_small_taxonomy(generator):
    classes = ["n00000004", "n00000005", "n00000007", "n00000008"]

    table = generator.make(ANIMALS, classes)

    head, _, body = table.partition("wnid\tancestor\tsiblings\n")
    assert body.splitlines() == [
        "n00000004\tn00000003\tn00000005",
        "n00000005\tn00000003\tn00000004",
        "n00000007\tn00000002\tn00000004 n00000005",
        "n00000008\tn00000001\tn00000004 n00000005 n00000007",
    ]
    assert head.endswith("# Do as you like.\n#\n# WordNet 3.0 Copyright of somebody\n")
    assert all(line.startswith("#") for line in head.splitlines())


def test_the_shipped_table_is_headed_by_the_generators_rule(generator):
    head = "".join(f"# {line}".rstrip() + "\n" for line in generator.RULE.splitlines())
    assert TABLE.read_text(encoding="utf-8").startswith(head)


def test_what_the_generator_refuses(generator):
    with pytest.raises(ValueError, match=r"does not say WordNet 3\.0"):
        generator.make(["  1 WordNet 3.1 Copyright", *ANIMALS[3:]], ["n00000004", "n00000005"])
    with pytest.raises(ValueError, match="n00000004 has no ancestor in common"):
        generator.make(ANIMALS, ["n00000004"])


@st.composite
def taxonomies(draw):
    """Nouns with shuffled names and up to three parents each, and some of them as classes."""
    count = draw(st.integers(3, 14))
    names = [f"{number:08d}" for number in draw(st.permutations(range(count)))]
    parents = {names[0]: []}
    for place in range(1, count):
        earlier = st.sampled_from(names[:place])
        parents[names[place]] = draw(st.lists(earlier, min_size=1, max_size=3, unique=True))
    classes = draw(st.lists(st.sampled_from(names[1:]), min_size=2, unique=True))
    return parents, classes


@settings(deadline=None)
@given(taxonomies())
def test_siblings_against_every_pair_looked_at(generator, taxonomy):
    parents, classes = taxonomy
    lines = [
        f"{name} 03 n 01 word 0 {len(above):03d} "
        + "".join(f"@ {p} n 0000 " for p in above)
        + "| gloss"
        for name, above in parents.items()
    ]

    def is_below(one, other):
        return any(parent == other or is_below(parent, other) for parent in parents[one])

    def nouns(found):
        return [
            (wnid[1:], ancestor[1:], [other[1:] for other in others])
            for wnid, ancestor, others in found
        ]

    expected = []
    for wnid in classes:
        best = None
        for candidate in sorted(parents):  # the smallest first, which a later one must beat
            group = [other for other in classes if is_below(other, candidate)]
            if wnid in group and len(group) > 1 and (best is None or len(group) < len(best[1])):
                best = candidate, group
        expected.append((wnid, best[0], sorted(set(best[1]) - {wnid})))
    found = generator.siblings([f"n{name}" for name in classes], generator.hypernyms(lines))
    assert nouns(found) == expected


def test_the_module_reads_the_table_beside_it():
    assert Path(classmaps.__file__).with_name("imagenet_siblings.tsv") == TABLE
