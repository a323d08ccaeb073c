"""Maps of well-known sets against facts from elsewhere, and maps from files."""

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import timm

from nmlcli.errors import InvalidInput, UsageError
from nmlcli.noise.classmaps import MAPS, read_map

ROOT = Path(__file__).parents[2]
# Members of the superclasses as they are published, by name.
SUPERCLASSES = """
beaver dolphin otter seal whale / aquarium_fish flatfish ray shark trout / orchid poppy rose
sunflower tulip / bottle bowl can cup plate / apple mushroom orange pear sweet_pepper / clock
keyboard lamp telephone television / bed chair couch table wardrobe / bee beetle butterfly
caterpillar cockroach / bear leopard lion tiger wolf / bridge castle house road skyscraper / cloud
forest mountain plain sea / camel cattle chimpanzee elephant kangaroo / fox porcupine possum raccoon
skunk / crab lobster snail spider worm / baby boy girl man woman / crocodile dinosaur lizard snake
turtle / hamster mouse rabbit shrew squirrel / maple_tree oak_tree palm_tree pine_tree willow_tree /
bicycle bus motorcycle pickup_truck train / lawn_mower rocket streetcar tank tractor
"""
OF = {name: number for number, group in enumerate(SUPERCLASSES.split("/")) for name in group.split()}


def named(name, classes=None):
    classes = classes or MAPS[name].names()
    found = read_map(name, classes)
    return {classes[c]: [classes[t] for t in targets] for c, (targets, weights) in found.items()}


def test_cifar10_is_that_of_patrini():
    assert named("cifar10") == {
        "truck": ["automobile"], "bird": ["airplane"], "cat": ["dog"], "dog": ["cat"], "deer": ["horse"],
    }  # fmt: skip
    numbers = {c: t.tolist() for c, (t, _) in read_map("cifar10", list("0123456789")).items()}
    assert numbers == {9: [1], 2: [0], 3: [5], 5: [3], 4: [7]}


def test_cifar100_stays_in_the_true_superclass_and_meets_each_class_once():
    arrows = named("cifar100")

    assert len(arrows) == 100
    assert all(OF[one] == OF[two] for one, (two,) in arrows.items())
    assert sorted(two for (two,) in arrows.values()) == sorted(OF)
    names = MAPS["cifar100"].names()
    assert list(names) == sorted(names)
    rises = [names.index(one) < names.index(two) for one, (two,) in arrows.items()]
    assert sum(rises) == 80  # the next one up, and from the last of five to the first


def test_of_the_blocks_six_arrows_of_a_hundred_stay_in_a_superclass():
    names = MAPS["cifar100-blocks"].names()
    arrows = named("cifar100-blocks")

    inside = {
        (names.index(one), names.index(two)) for one, (two,) in arrows.items() if OF[one] == OF[two]
    }
    assert inside == {(6, 7), (19, 15), (42, 43), (63, 64), (86, 87), (89, 85)}


def test_imagenet_siblings():
    path = ROOT / "nmlcli" / "noise" / "imagenet_siblings.tsv"
    assert hashlib.sha256(path.read_bytes()).hexdigest()[:16] == "abcf30acc0c768ae"
    arrows = named("imagenet")
    synsets = Path(timm.__file__).parent / "data" / "_info" / "imagenet_synsets.txt"
    assert list(arrows) == synsets.read_text().split()
    for one, others in arrows.items():
        assert one not in others
        assert set(others) <= arrows.keys()
        assert len(set(others)) == len(others) >= 1
    # tabby: tiger cat, Persian, Siamese, Egyptian cat; goldfish: tench
    assert arrows["n02123045"] == ["n02123159", "n02123394", "n02123597", "n02124075"]
    assert arrows["n01443537"] == ["n01440764"]


def test_the_rule_of_siblings_on_a_small_taxonomy():
    spec = importlib.util.spec_from_file_location("make_siblings", ROOT / "docs" / "make_siblings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    lines = [
        "  1 a licence",
        "00000001 03 n 01 thing 0 000 | all",
        "00000002 03 n 02 beast 0 animal 0 001 @ 00000001 n 0000 | lives",
        "00000003 03 n 01 cat 0 002 @ 00000002 n 0000 ~ 00000009 n 0000 | purrs",
        "00000004 03 n 01 tabby 0 001 @ 00000003 n 0000 | a",
        "00000005 03 n 01 tiger_cat 0 002 @ 00000003 n 0000 + 00000001 v 0101 | b",
        "00000006 03 n 01 dog 0 001 @ 00000002 n 0000 | c",
        "00000007 03 n 01 rex 0 001 @i 00000006 n 0000 | d",
        "00000008 03 n 01 car 0 001 @ 00000001 n 0000 | e",
    ]
    classes = ["n00000004", "n00000005", "n00000007", "n00000008"]

    found = module.siblings(module.read_hypernyms(lines), classes)

    assert found["n00000004"] == ("n00000003", ("n00000005",))
    assert found["n00000007"] == ("n00000002", ("n00000004", "n00000005"))
    assert found["n00000008"] == ("n00000001", ("n00000004", "n00000005", "n00000007"))


def test_a_part_of_the_classes_keeps_the_arrows_between_them():
    assert named("cifar10", ["cat", "dog", "bird"]) == {"cat": ["dog"], "dog": ["cat"]}
    with pytest.raises(InvalidInput, match="has no arrow between the classes frog, ship"):
        named("cifar10", ["frog", "ship"])
    with pytest.raises(InvalidInput, match="does not know the classes lynx: it knows airplane"):
        named("cifar10", ["cat", "lynx"])


def test_a_map_from_a_file(tmp_path):
    (tmp_path / "m.csv").write_text("to,from,weight\nb,a,1\nc,a,3\na,c,.5\n")
    found = read_map(str(tmp_path / "m.csv"), ["a", "b", "c"])

    assert {c: (t.tolist(), w.tolist()) for c, (t, w) in found.items()} == {
        0: ([1, 2], [1.0, 3.0]), 2: ([0], [0.5]),
    }  # fmt: skip
    (tmp_path / "m.jsonl").write_text('{"from": 1, "to": 2}\n')
    assert read_map(str(tmp_path / "m.jsonl"), ["1", "2"])[0][0].tolist() == [1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("from,to\na,dogg\na,b\n", "names classes that the labels lack: dogg: did you mean dog"),
        ("from,to\na,a\n", "row 1 sends a to itself"),
        ("from,to\na,b\na,b\n", "row 2 names a to b again"),
        ("from,to,weight\na,b,0\n", "row 1 has the weight 0: give a positive number"),
        ("from,to,weight\na,b,x\n", "has the weight x"),
        ("from,to,weight\na,b,inf\n", "has the weight inf"),
        ("from,to\n", "has no rows"),
        ("from,two\na,b\n", "has no column to, but from, two"),
        ("", "is empty"),
    ],
)
def test_what_is_no_map(tmp_path, text, message):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(InvalidInput, match=message):
        read_map(str(tmp_path / "m.csv"), ["a", "b", "dog"])


def test_a_name_that_is_none():
    with pytest.raises(UsageError, match="is no map and no file: did you mean cifar10"):
        read_map("cifar-10", ["a", "b"])


def test_weights_are_followed(tmp_path):
    from fractions import Fraction

    from nmlcli.noise.kinds import NOISES, Request
    from tests.noise.cases import rows_of

    rows = rows_of(map(str, range(8000)), np.zeros(8000), 3)
    (tmp_path / "m.csv").write_text(
        "from,to,weight\nclass 0000,class 0001,1\nclass 0000,class 0002,3\n"
    )
    request = Request(Fraction("0.5"), map=str(tmp_path / "m.csv"))
    counts = np.bincount(NOISES["asymmetric"].change(rows, request).values)
    assert counts[0] == 4000
    assert abs(counts[2] - 3000) < 5 * (4000 * 3 / 16) ** 0.5
