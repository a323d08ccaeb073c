"""`tune --method zeroshot`: the classifier is open_clip's own, on the features that embed gives."""

import json
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from nmlcli.cli.main import run
from nmlcli.cli.tune import tune as command
from nmlcli.data.sources import SourceOptions
from nmlcli.errors import InvalidInput, ThresholdMissed, UsageError
from nmlcli.models.clip import build_clip
from nmlcli.models.schemes import Wanted, open_network
from nmlcli.products.checkpoint import Checkpoint
from nmlcli.products.formats import read_features, read_head, write_checkpoint
from nmlcli.products.head import Head
from nmlcli.products.tables import write_table
from nmlcli.provenance import Record
from nmlcli.stages.embed import EmbedOptions, embed
from nmlcli.stages.eval import EvalOptions, check_threshold, evaluate
from nmlcli.stages.info import describe, worded
from nmlcli.stages.zeroshot import ZeroShotOptions, read_class_names, read_templates, zeroshot

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}
WORDS = ["goldfish", "newt, eft", "bullfrog", "jay", "robin", "kite", "owl", "drake", "goose", "koala",
         "snail", "crab"]  # fmt: skip
NAMES = {f"n{number:02d}": words for number, words in enumerate(WORDS)}


@pytest.fixture(scope="module")
def network(tmp_path_factory: Any) -> tuple[str, Any]:
    """A checkpoint as pre-training writes it, and the network in it."""
    folder = tmp_path_factory.mktemp("clip")
    (folder / "tiny.json").write_text(json.dumps(CONFIG))
    built = build_clip(str(folder / "tiny.json"), None, 3)
    module: Any = built.module.eval()
    with torch.no_grad():
        module.logit_scale.fill_(1.7)
    noise = {"kind": "swap", "requested": 0.2, "realised": 0.19, "seed": 4}
    model = {
        "name": "tiny", "architecture": "tiny", "config": built.config, "objective": "clip",
        "preprocessing": built.preprocessing.facts(), "seed": 3, "identity": "c" * 32,
        "data": {"name": "pairs:train"}, "noise": noise, "layer": None,
    }  # fmt: skip
    record = Record("checkpoint", "c" * 32, "pretrain", model=model)
    path = str(folder / "clip.safetensors")
    write_checkpoint(path, Checkpoint(record, dict(module.state_dict()), path))
    return path, module


def table(folder: Path, rows: Any, columns: tuple[str, str] = ("class", "words")) -> str:
    """A table of names; returns its file's name."""
    path = str(folder / "names.csv")
    write_table(path, dict(zip(columns, zip(*rows, strict=True), strict=True)), None)
    return path


def made(folder: Path, model: str, names: str, templates: str | None = None) -> Head:
    out = str(folder / "head.safetensors")
    zeroshot(model, out, ZeroShotOptions(names, templates))
    return read_head(out)


def test_the_classifier_is_that_of_open_clip(network: Any, tmp_path: Path) -> None:
    path, module = network
    head = made(tmp_path, path, table(tmp_path, NAMES.items()))
    tokenizer = open_clip.SimpleTokenizer(context_length=16)
    classifier = open_clip.build_zero_shot_classifier(
        module, tokenizer, WORDS, open_clip.OPENAI_IMAGENET_TEMPLATES
    )
    scale = float(np.exp(1.7))
    np.testing.assert_allclose(head.layers[0][0], scale * classifier.T.numpy(), atol=1e-5)
    assert (head.layers[0][1] == 0).all()
    images = torch.randn(5, 3, 16, 16)
    with torch.inference_mode():
        features = module.encode_image(images).numpy()
        expected = scale * module.encode_image(images, normalize=True) @ classifier
    transformed, logits = head.apply(features)
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-5)
    assert (transformed == features).all()


def test_several_names_of_a_class_are_averaged(network: Any, tmp_path: Path) -> None:
    path, module = network
    rows = [("b", "owl"), ("a", "newt"), ("b", "kite"), ("a", "robin {x}"), ("b", "jay")]
    (tmp_path / "templates.txt").write_text("# mine\na {}.\n\n  the {} and {}\r\n", newline="")
    templates = str(tmp_path / "templates.txt")
    head = made(tmp_path, path, table(tmp_path, rows), templates)
    assert head.record.classes == ("a", "b")
    weight = []
    for name in "ab":
        words = [each for of, each in rows if of == name]
        texts = [text for each in words for text in (f"a {each}.", f"the {each} and {each}")]
        with torch.inference_mode():
            embedded = module.encode_text(open_clip.tokenize(texts, 16), normalize=True)
        mean = embedded.mean(0)
        weight.append(float(np.exp(1.7)) * mean / mean.norm())
    np.testing.assert_allclose(head.layers[0][0], torch.stack(weight).numpy(), atol=1e-5)
    before = (tmp_path / "head.safetensors").read_bytes()
    again = made(tmp_path, path, table(tmp_path, rows[::-1]), templates)
    assert (tmp_path / "head.safetensors").read_bytes() == before
    assert again.record.extra["templates"] == ["a {}.", "the {} and {}"]
    assert again.record.extra["options"] == {"templates": again.record.extra["options"]["templates"]}
    assert len(again.record.extra["options"]["templates"]) == 8


def pictures(folder: Path) -> str:
    """A table of images with labels and texts."""
    draws, rows = np.random.default_rng(0), []
    for number in range(8):
        pixels = draws.integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append((f"{number}.png", f"n{number % 3:02d}", f"a photo of {number}"))
    columns = zip(("image", "label", "text"), zip(*rows, strict=True), strict=True)
    write_table(str(folder / "pairs.csv"), dict(columns), None)
    return f"owls:test={folder / 'pairs.csv'}"


def test_it_is_scored_on_the_features_of_the_images(network: Any, tmp_path: Path) -> None:
    path, _ = network
    head = made(tmp_path, path, table(tmp_path, NAMES.items()))
    data, out = pictures(tmp_path), str(tmp_path / "features.h5")
    embed([data], path, out, EmbedOptions(SourceOptions()))
    features = read_features(out)
    assert head.record.model == features.record.model
    assert (head.record.extra["trained_on"], head.record.rows, head.record.data) == ([], None, None)
    assert [parent["identity"] for parent in head.record.parents] == ["c" * 32]
    (line,) = evaluate(str(tmp_path / "head.safetensors"), [out], EvalOptions())
    wanted = {
        "method": "zeroshot", "seen": False, "role": None, "backbone": "tiny", "backbone_seed": 3,
        "objective": "clip", "pretrain_set": "pairs:train", "pretrain_noise": "swap",
        "pretrain_ratio": 0.2, "layer": "images projection", "options": "", "classes_scored": 12,
        "backbone_identity": "c" * 32,
    }  # fmt: skip
    unknown = ("preset", "loss", "scale", "seed", "fraction", "selected_by", "train_set", "train_noise")
    assert {key: line[key] for key in wanted} == wanted
    assert [line[key] for key in unknown] == [None] * len(unknown)
    rows = torch.nn.functional.normalize(torch.from_numpy(features.matrix()))
    logits = rows @ torch.from_numpy(head.layers[0][0]).T
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([n % 3 for n in range(8)]))
    assert line["nll"] == pytest.approx(loss.item(), rel=1e-5)
    singular = torch.linalg.svdvals(torch.from_numpy(features.matrix()).double())
    shares = singular / singular.sum()
    assert line["sve"] == pytest.approx(-(shares * shares.log()).sum().item(), rel=1e-5)
    with pytest.raises(ThresholdMissed, match="zeroshot on owls:test: accuracy"):
        check_threshold([line], 1.1)
    assert worded(describe(str(tmp_path / "head.safetensors")))["is"] == "a head, 16 columns"


def test_features_of_texts_are_of_another_network(network: Any, tmp_path: Path) -> None:
    path, _ = network
    made(tmp_path, path, table(tmp_path, NAMES.items()))
    data, out = pictures(tmp_path), str(tmp_path / "features.h5")
    embed([data], path, out, EmbedOptions(SourceOptions(), texts=True))
    with pytest.raises(InvalidInput, match="is of another network"):
        evaluate(str(tmp_path / "head.safetensors"), [out], EvalOptions())


def test_weights_of_open_clip_in_a_file(network: Any, tmp_path: Path) -> None:
    path, module = network
    (tmp_path / "other.json").write_text(json.dumps(CONFIG))
    save_file(module.state_dict(), tmp_path / "other.safetensors")
    name = f"open_clip:{tmp_path / 'other.json'}@{tmp_path / 'other.safetensors'}"
    names = table(tmp_path, NAMES.items())
    head, same = made(tmp_path, name, names), made(tmp_path, path, names)
    assert head.record.model == open_network(name, Wanted()).facts
    assert head.record.parents == ()
    assert (head.layers[0][0] == same.layers[0][0]).all()
    assert head.record.identity != same.record.identity


def test_what_is_up_to_date_is_kept(network: Any, tmp_path: Path) -> None:
    path, _ = network
    names, out = table(tmp_path, list(NAMES.items())[:2]), str(tmp_path / "head.h5")
    (tmp_path / "templates.txt").write_text("a {}\n")
    templates = str(tmp_path / "templates.txt")
    first = zeroshot(path, out, ZeroShotOptions(names, templates))
    assert first is not None
    assert zeroshot(path, out, ZeroShotOptions(names, templates, reuse=True)) is None
    others = [table(tmp_path, rows) for rows in ([("n00", "a"), ("n01", "newt, eft")],)]
    again = zeroshot(path, out, ZeroShotOptions(others[0], templates, reuse=True))
    (tmp_path / "templates.txt").write_text("b {}\n")
    third = zeroshot(path, out, ZeroShotOptions(others[0], templates, reuse=True))
    assert again is not None and third is not None
    assert len({each.identity for each in (first, again, third)}) == 3


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_names_in_any_form_and_order(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    columns = {"words": ["German shepherd, Alsatian", " cat "], "more": ["", ""], "class": ["b", "a"]}
    path = str(tmp_path / f"names{suffix}")
    write_table(path, columns, None)
    assert read_class_names(path) == {"a": ["cat"], "b": ["German shepherd, Alsatian"]}
    write_table(path, {"wnid": ["b", "a"], "name": ["x", "y"]}, None)
    assert read_class_names(path) == {"a": ["y"], "b": ["x"]}


def test_words_for_two_classes_are_remarked_on(tmp_path, caplog):
    path = table(tmp_path, [("crane", "crane"), ("machine", "crane"), ("machine", "hoist"), ("z", "z")])
    assert read_class_names(path)["machine"] == ["crane", "hoist"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: 'crane' stands for 2 classes: crane, machine"
    ]


def test_the_names_of_tiny_imagenet(shared_data: Path) -> None:
    names = read_class_names(str(shared_data / "tiny-imagenet-100" / "classes.tsv"))
    assert len(names) == 100
    assert list(names) == sorted(names)
    assert names["n01641577"] == ["bullfrog, Rana catesbeiana"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("class,name,more\na,b,c\n", "has 3 columns: two are wanted, class and words, by name or"),
        ("class\na\n", "has 1 columns: two are wanted"),
        ("class,words\na,x\nb,\n", "row 2 has no words in column words"),
        ("class,words\na,x\nb,  \n", "row 2 has no words in column words"),
        ("class,words\n,x\nb,y\n", "row 1 has no class in column class"),
        ("class,words\na,x\na,y\n", "names 1 class: give two or more"),
        ("class,words\na,x\nb,x\na, x\n", "row 3 names a 'x' again: leave it out"),
        ("", "is empty"),
    ],
)
def test_names_that_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "names.csv").write_text(text)
    with pytest.raises(InvalidInput, match=rf"names\.csv.*{words}"):
        read_class_names(str(tmp_path / "names.csv"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"# {}\na {}\n\nphoto of a\n", "line 4 has no {}, which stands for the words: write it as in"),
        (b"# {}\n\n", "holds no templates: give one or more"),
        (b"\xff {}\n", "is no UTF-8 text: recode it"),
        (b"", "is empty"),
    ],
)
def test_templates_that_cannot_be_used(tmp_path: Path, text: bytes, words: str) -> None:
    (tmp_path / "templates.txt").write_bytes(text)
    with pytest.raises(InvalidInput) as caught:
        read_templates(str(tmp_path / "templates.txt"))
    assert words in str(caught.value)


def test_networks_that_do_not_take_both(tmp_path: Path) -> None:
    names = table(tmp_path, NAMES.items())
    for model, lacking in (("timm:resnet18", "texts"), ("hf:any", "images")):
        with pytest.raises(UsageError, match=f"{model} takes no {lacking}: take a checkpoint of CLIP"):
            zeroshot(model, str(tmp_path / "head.h5"), ZeroShotOptions(names))


def test_embeddings_that_are_not_finite(network: Any, tmp_path: Path) -> None:
    _, module = network
    state = {**module.state_dict(), "logit_scale": torch.tensor(float("nan"))}
    (tmp_path / "tiny.json").write_text(json.dumps(CONFIG))
    save_file(state, tmp_path / "broken.safetensors")
    name = f"open_clip:{tmp_path / 'tiny.json'}@{tmp_path / 'broken.safetensors'}"
    with pytest.raises(InvalidInput, match="is not finite: its weights are damaged"):
        made(tmp_path, name, table(tmp_path, NAMES.items()))
    assert not (tmp_path / "head.safetensors").exists()


def test_the_command_writes_the_file_and_the_stream(
    network: Any, tmp_path: Path, capfdbinary: Any
) -> None:
    path, _ = network
    names, out = table(tmp_path, list(NAMES.items())[:2]), str(tmp_path / "head.safetensors")
    given = ["tune", "--method", "zeroshot", "-m", path, "--class-names", names]
    assert run([*given, "-o", out]) == 0
    assert f"{out}: zeroshot, 2 classes by 80 templates" in capfdbinary.readouterr().err.decode()
    assert run([*given, "-q"]) == 0
    shown = capfdbinary.readouterr()
    assert shown.out == (tmp_path / "head.safetensors").read_bytes()
    assert shown.err == b""


KNOWN = {"method", "model", "class_names", "templates", "out", "reuse", "quiet", "verbose"}
VALUES = {  # of options that take no number
    "features": ["f.h5"], "preset": "released", "labels": "l.csv", "val": "v.h5", "grid": ["lr=1,2"],
    "solver": "lbfgs", "l2": "auto", "loss": "gce", "scale": "rms", "log_file": "log", "refit": True,
    "schedule": "linear", "activation": "none", "reduction": "row", "views": False, "residual": True,
    "batch_norm": False, "fraction": 0.5,
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in signature(command).parameters if name not in KNOWN])
def test_what_has_no_effect_is_refused_by_its_name(name: str) -> None:
    declared = signature(command).parameters[name].annotation.__metadata__[0]
    given: dict[str, Any] = {
        "method": "zeroshot",
        "model": "m",
        "class_names": "c",
        name: VALUES.get(name, 7),
    }
    with pytest.raises(UsageError, match="does not apply to --method zeroshot: leave it out") as caught:
        command(**given)
    written = caught.value.wrong.split()[0]
    words = [declared.default, *(declared.param_decls or ())]
    names = [each.partition("/")[0] for each in words if isinstance(each, str)]
    assert written in (names or ["FEATURES"])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--method", "zeroshot"], "--method zeroshot needs -m: give a network for images and texts"),
        (
            ["--method", "zeroshot", "-m", "x"],
            "--method zeroshot needs --class-names: give a table of class and words",
        ),
        (["--method", "lp,zeroshot"], "--method zeroshot goes with no other method: run it by itself"),
        (["-m", "x", "f.h5"], "-m does not apply to --method nmtune: it is for --method zeroshot"),
        (
            ["--class-names", "x", "--method", "lp,mlp"],
            "--class-names does not apply to --method lp, mlp: it is for --method zeroshot",
        ),
        (["--method", "zero"], "--method: no 'zero': did you mean zeroshot?"),
    ],
)
def test_a_typing_error_is_told_in_a_line(given: list[str], says: str, capsys: Any) -> None:
    assert run(["tune", *given, "-o", "head.h5"]) == 2
    assert capsys.readouterr().err == f"nml tune: {says}\n"
