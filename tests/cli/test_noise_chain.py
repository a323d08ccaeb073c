"""What noise was made stays known to the end: the checkpoint, its features, the result line."""

import json
from pathlib import Path

import pytest

from nmlcli.cli.main import run
from nmlcli.products.formats import read_record
from nmlcli.products.tables import read_table

SET = ["builtin:shapes:train", "--limit", "120"]
KEYS = ("pretrain_noise", "pretrain_ratio", "pretrain_realised", "pretrain_noise_seed")


def nml(*words):
    assert run([*map(str, words), "-q"]) == 0


@pytest.fixture
def follow(tmp_path, monkeypatch, capsys):
    """Train on a label table, embed with the network, and give its record and the spectrum's line."""
    monkeypatch.chdir(tmp_path)

    def of(labels):
        given = ["--labels", labels] if labels else []
        shape = ["-a", "test_resnet", "--size", 16, "--epochs", 1, "--augment", "none"]
        nml("pretrain", *SET, *given, *shape, "-o", "n.safetensors")
        nml("embed", "builtin:textures:test", "--limit", 40, "-m", "n.safetensors", "-o", "f.h5")
        capsys.readouterr()
        nml("spectrum", "f.h5", "--json")
        line = json.loads(capsys.readouterr().out)
        return read_record("n.safetensors").noise, tuple(line[key] for key in KEYS)

    return of


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--ratio", "0"], ("symmetric", 0.0, 0.0, 3)),
        (["--ratio", "0.25", "--stratify"], ("symmetric", 0.25, 0.25, 3)),
        (["--ratio", "0.1", "--classes", "star,ring", "--ratio-of", "all"], ("symmetric", 0.1, 0.1, 3)),
        (["--ratio", "0.2", "--kind", "pairflip", "--draw", "bernoulli"], ("pairflip", 0.2, None, 3)),
    ],
)
def test_synthetic_noise_reaches_the_end(follow, options, wanted):
    nml("corrupt", *SET, "--seed", 3, *options, "-o", "noisy.csv")

    noise, line = follow("noisy.csv")

    table = read_table("noisy.csv")
    pairs = list(zip(table.column("label"), table.column("clean_label"), strict=True))
    realised = sum(one != two for one, two in pairs) / len(pairs)
    assert noise == read_record("noisy.csv").noise
    assert line == (*wanted[:2], realised, wanted[3])
    assert wanted[2] in (None, realised)


def test_labels_of_people_reach_the_end(follow):
    nml("corrupt", *SET, "--ratio", "0.5", "-o", "noisy.csv")
    text = Path("noisy.csv").read_text().replace("id,label,clean_label", "id,worse,true")
    Path("people.csv").write_text(text)
    nml("corrupt", "people.csv", "--label-column", "true", "--from-column", "worse", "-o", "h.parquet")

    assert follow("h.parquet")[1] == ("human:worse", None, 0.5, None)


def test_a_clean_past_and_an_unknown_one_are_told_apart(follow, capsys):
    assert follow(None)[1][:3] == ("none", 0.0, 0.0)
    nml("embed", "builtin:textures:test", "--limit", 40, "-m", "timm:test_resnet", "--random-init",
        "-o", "u.h5")  # fmt: skip
    capsys.readouterr()
    nml("spectrum", "u.h5", "--json")
    unknown = json.loads(capsys.readouterr().out)
    assert [unknown[key] for key in KEYS] == [None] * 4
    nml("corrupt", *SET, "--ratio", "0", "-o", "clean.csv")
    assert follow("clean.csv")[1][2] == 0
