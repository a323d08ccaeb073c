"""Convert: what nml wrote stays what it was, vectors of others become features, damage is named."""

import io
import json
import os
import stat
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from safetensors.numpy import load, save_file

from nmlcli.cli.main import run
from nmlcli.errors import InvalidInput, NmlError, UsageError
from nmlcli.products.features import Features
from nmlcli.products.formats import FORMATS, read_features, write_features
from nmlcli.products.vectors import VECTORS
from nmlcli.stages.convert import ConvertOptions, convert
from nmlcli.stages.inputs import check_network, open_labelled

EVERY = (*FORMATS, *VECTORS)
VALUES = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def lines(path, objects):
    path.write_text("".join(json.dumps(each) + "\n" for each in objects))
    return str(path)


def vectors(tmp_path, name="x.jsonl", **changed):
    """A file of another program: six vectors named s0 to s5."""
    rows = [{"id": f"s{i}", "embedding": row.tolist(), **changed} for i, row in enumerate(VALUES)]
    return lines(tmp_path / name, rows)


def labels(tmp_path, *cells, name="labels.csv", header="id,label"):
    rows = cells or [f"s{i},{'bee' if i % 2 else 'ant'}" for i in reversed(range(6))]
    (tmp_path / name).write_text("\n".join([header, *rows]) + "\n")
    return str(tmp_path / name)


def converted(source, out, **options):
    convert(str(source), str(out), ConvertOptions(**options))
    return read_features(str(out))


@pytest.mark.parametrize("suffix", EVERY)
def test_there_and_back_is_the_same_file(make_features, tmp_path, suffix):
    source, there, back = make_features("a.h5"), tmp_path / f"b{suffix}", str(tmp_path / "c.h5")
    convert(source, str(there), ConvertOptions())
    convert(str(there), back, ConvertOptions())
    if suffix != ".npy":
        assert Path(back).read_bytes() == Path(source).read_bytes()
    assert read_features(back).record == read_features(source).record
    assert (read_features(back).matrix() == read_features(source).matrix()).all()


@pytest.mark.parametrize("suffix", EVERY)
def test_up_to_date_or_made_again(make_features, tmp_path, suffix, caplog):
    caplog.set_level("INFO", "nmlcli")
    source, out = make_features("a.h5"), str(tmp_path / f"b{suffix}")
    options = ConvertOptions(dtype="float16", reuse=True)
    record = convert(source, out, options)
    assert record.command == "convert" and convert(source, out, options) is None
    assert "is up to date" in caplog.text
    os.utime(source, (2**31, 2**31))
    assert convert(source, out, options) == record
    assert convert(source, out, ConvertOptions(reuse=True)).identity != record.identity


def test_vectors_of_an_api_become_features(tmp_path):
    found = converted(
        vectors(tmp_path), tmp_path / "x.h5", labels=labels(tmp_path), model="text-embedding"
    )
    assert (found.matrix() == VALUES).all() and found.ids == [f"s{i}" for i in range(6)]
    assert found.record.classes == ("ant", "bee") and found.labels.tolist() == [0, 1] * 3
    assert found.record.command == "convert" and found.record.noise is None
    assert [parent["kind"] for parent in found.record.parents] == ["features", "labels"]
    assert open_labelled([str(tmp_path / "x.h5")], None).labels.tolist() == [0, 1] * 3


def test_one_name_is_one_network(tmp_path, caplog):
    sets = {}
    for name, model in (("a", "one"), ("b", "one"), ("c", "two"), ("d", None)):
        source = vectors(tmp_path, f"{name}.jsonl", label=name)
        sets[name] = converted(source, tmp_path / f"{name}.h5", model=model)
    assert sets["a"].record.identity != sets["b"].record.identity
    check_network(sets["a"].record, "a", sets["b"])
    assert not caplog.text
    with pytest.raises(InvalidInput, match="another network"):
        check_network(sets["a"].record, "a", sets["c"])
    check_network(sets["a"].record, "a", sets["d"])
    assert "the network of" in caplog.text
    with pytest.raises(UsageError, match="already says that its network is one"):
        converted(tmp_path / "a.h5", tmp_path / "e.h5", model="two")


def test_classes_in_a_stated_order(tmp_path):
    source, table = vectors(tmp_path), labels(tmp_path)
    (tmp_path / "classes.txt").write_text("bee\ncat\n\nant\n")
    stated = str(tmp_path / "classes.txt")
    found = converted(source, tmp_path / "x.h5", labels=table, classes=stated)
    assert found.record.classes == ("bee", "cat", "ant") and found.labels.tolist() == [2, 0] * 3
    again = converted(tmp_path / "x.h5", tmp_path / "y.h5", labels=table)
    assert again.record.classes == ("bee", "cat", "ant") and again.labels.tolist() == [2, 0] * 3
    plain = converted(source, tmp_path / "z.h5", labels=table)
    other = converted(tmp_path / "z.h5", tmp_path / "w.h5", classes=stated)
    assert other.labels.tolist() == [2, 0] * 3 and plain.labels.tolist() == [0, 1] * 3
    wide = labels(tmp_path, *(f"s{i},{name}" for i, name in enumerate("ufwxyz")))
    with pytest.raises(InvalidInput, match=r"labels\.csv: classes .*: f, u, w and 3 more"):
        converted(source, tmp_path / "v.h5", labels=wide, classes=stated)
    with pytest.raises(InvalidInput, match="has no labels"):
        converted(source, tmp_path / "v.h5", classes=stated)
    for text, message in (("", "names no classes"), ("a\nb\na\n", "names classes twice: a")):
        (tmp_path / "classes.txt").write_text(text)
        with pytest.raises(InvalidInput, match=message):
            converted(source, tmp_path / "v.h5", labels=table, classes=stated)


def test_labels_that_do_not_fit_are_named(tmp_path):
    source = vectors(tmp_path)
    few = labels(tmp_path, "s0,a", "s1,b")
    with pytest.raises(InvalidInput, match=r"no label for samples of .*: s2, s3, s4 and 1 more"):
        converted(source, tmp_path / "x.h5", labels=few)
    table = labels(tmp_path, *(f"s{i},a,b" for i in range(6)), header="key,label,clean_label")
    found = converted(source, tmp_path / "x.h5", labels=table, id_column="key")
    assert found.record.noise["realised"] == 1 and found.clean_labels.tolist() == [1] * 6
    other = labels(
        tmp_path, *(f"s{i},{'ab'[i % 2]},b" for i in range(6)), header="key,label,clean_label"
    )
    again = converted(source, tmp_path / "y.h5", labels=other, id_column="key")
    assert again.record.identity != found.record.identity and again.record.classes == ("a", "b")
    with pytest.raises(InvalidInput, match="has no column key"):
        converted(source, tmp_path / "x.h5", id_column="key")
    with pytest.raises(UsageError, match="- is given twice"):
        converted("-", tmp_path / "x.h5", labels="-")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_matrices_in_foreign_hdf5_and_safetensors(tmp_path, dtype, caplog):
    caplog.set_level("INFO", "nmlcli")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["vectors"] = VALUES.astype(dtype)
        file["labels"] = np.arange(6, dtype=np.uint8) % 2
    found = converted(tmp_path / "x.h5", tmp_path / "y.h5", key="vectors")
    wanted = VALUES.astype(np.float16 if dtype == "float16" else np.float32)
    assert found.dtype == wanted.dtype and (found.matrix() == wanted).all()
    assert found.labels.tolist() == [0, 1] * 3
    assert ("narrowed to float32" in caplog.text) == (dtype == "float64")
    native = VALUES.astype(dtype[-2:] if dtype[0] == ">" else dtype)
    save_file({"features": native, "embeddings": native[:2]}, tmp_path / "x.safetensors")
    assert (converted(tmp_path / "x.safetensors", tmp_path / "z.npz.h5").matrix() == wanted).all()
    with pytest.raises(InvalidInput, match="has no other: it holds"):
        converted(tmp_path / "x.h5", tmp_path / "y.h5", key="other")
    with pytest.raises(InvalidInput, match=r"labels is .*not float16"):
        converted(tmp_path / "x.h5", tmp_path / "y.h5", key="labels")


@pytest.mark.parametrize("shape", [(0, 8), (3, 0)])
@pytest.mark.parametrize("suffix", [".h5", ".npy", ".npz", ".safetensors"])
def test_what_holds_no_rows_or_columns_says_so(tmp_path, capsys, suffix, shape):
    source, empty = tmp_path / f"x{suffix}", np.zeros(shape, np.float32)
    if suffix == ".safetensors":
        save_file({"features": empty}, source)
    elif suffix == ".h5":
        with h5py.File(source, "w") as file:
            file["features"] = empty
    else:
        np.save(source, empty) if suffix == ".npy" else np.savez(source, features=empty)
    assert run(["convert", str(source), str(tmp_path / "y.h5")]) == 1
    message = f"{source} holds no features: it is {shape[0]} × {shape[1]}"
    assert capsys.readouterr().err == f"nml convert: {message}\n"
    if suffix in FORMATS:
        assert run(["spectrum", str(source)]) == 1
        assert capsys.readouterr().err == f"nml spectrum: {message}\n"


@pytest.mark.parametrize("suffix", [".h5", ".npz", ".safetensors"])
def test_numbers_beyond_int64_are_named_as_they_are(tmp_path, suffix):
    source, high = tmp_path / f"x{suffix}", np.arange(6, dtype=np.uint64)
    high[2] = 2**64 - 1
    arrays = {"features": VALUES, "keys": high, "labels": np.arange(6) % 2}
    if suffix == ".safetensors":
        save_file(arrays, source)
    elif suffix == ".npz":
        np.savez(source, **arrays)
    else:
        with h5py.File(source, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    words = "row 2 has the label 18446744073709551615, outside of 1,000,006 classes"
    with pytest.raises(InvalidInput, match=words):
        converted(source, tmp_path / "y.h5", label_column="keys")
    found = converted(source, tmp_path / "y.h5", id_column="keys")
    assert found.ids[2] == "18446744073709551615"


@pytest.mark.parametrize("suffix", [".h5", ".npz", ".safetensors"])
def test_columns_of_foreign_arrays(make_features, tmp_path, suffix):
    source, out = tmp_path / f"x{suffix}", tmp_path / "y.h5"
    arrays = {"features": VALUES, "keys": np.arange(6) + 10, "kinds": np.arange(6) % 3,
              "labels": np.zeros(6, np.int64), "clean_labels": np.ones(6, np.int64)}  # fmt: skip
    if suffix == ".safetensors":
        save_file(arrays, source)
    elif suffix == ".npz":
        np.savez(source, **arrays, names=np.array(["b", "a"] * 3))
    else:
        with h5py.File(source, "w") as file:
            for name, array in {**arrays, "names": np.array([b"b", b"\xc3\xa4"] * 3)}.items():
                file[name] = array
            file["bad"], file["broken"] = np.ones((6, 1), int), np.array([b"\xff"] * 6)
    found = converted(source, out, id_column="keys", label_column="kinds")
    assert found.ids == list(map(str, range(10, 16))) and found.labels.tolist() == [0, 1, 2] * 2
    plain = converted(source, out)
    assert plain.ids == list("012345") and plain.labels.tolist() == [0] * 6
    assert plain.clean_labels.tolist() == [1] * 6 and found.clean_labels is None
    for asked, option in (
        ({"id_column": "none"}, "--id-column"),
        ({"label_column": "none"}, "--label-"),
    ):
        with pytest.raises(InvalidInput, match=rf"has no column none, but .*{option}"):
            converted(source, out, **asked)
    if suffix != ".safetensors":
        found = converted(source, out, label_column="names")
        assert found.clean_labels is None  # those there are go with labels
        last = "a" if suffix == ".npz" else "ä"
        assert found.record.classes == tuple(sorted(("b", last)))
        assert [found.record.classes[number] for number in found.labels] == ["b", last] * 3
    if suffix == ".h5":
        for name, message in (
            ("bad", "not a list of whole numbers or of texts"),
            ("broken", "not UTF-8"),
        ):
            with pytest.raises(InvalidInput, match=message):
                converted(source, out, label_column=name)
    table = labels(tmp_path, *(f"{i},ant" for i in range(10, 16)), header="keys,what")
    found = converted(source, out, labels=table, id_column="keys", label_column="what")
    assert found.record.classes == ("ant",)


def test_names_and_numbers_of_classes_are_told_apart(tmp_path):
    arrays = {"labels": np.array(["a", "b"] * 3), "clean_labels": np.ones(6, int)}
    np.savez(tmp_path / "x.npz", features=VALUES, **arrays)
    with pytest.raises(InvalidInput, match="names and numbers of classes"):
        converted(tmp_path / "x.npz", tmp_path / "y.h5")


def test_names_where_nothing_has_one_are_refused(make_features, tmp_path):
    np.save(tmp_path / "x.npy", VALUES)
    table = labels(tmp_path, *(f"{i},ant" for i in range(6)), header="keys,label")
    for source in (tmp_path / "x.npy", make_features("a.h5"), make_features("a.safetensors")):
        for asked, message in (
            ({"id_column": "keys"}, "no keys can be chosen from it: leave --id-column out"),
            ({"label_column": "labels"}, "leave --label-column out"),
        ):
            with pytest.raises(UsageError, match=message):
                converted(source, tmp_path / "y.h5", **asked)
    with pytest.raises(UsageError, match="without a name: leave --key out"):
        converted(tmp_path / "x.npy", tmp_path / "y.npz", key="features")
    assert converted(tmp_path / "x.npy", tmp_path / "y.h5", labels=table, id_column="keys").rows == 6


@pytest.mark.parametrize("key", ["../../x", "/x", "a\\b", "a\0b"])
def test_a_key_leads_nowhere_else(make_features, tmp_path, key):
    with pytest.raises(InvalidInput, match="cannot be named"):
        convert(make_features("a.h5"), str(tmp_path / "y.npz"), ConvertOptions(key=key))
    assert not (tmp_path / "y.npz").exists()


def test_clean_labels_follow_another_order_of_classes(tmp_path):
    table = labels(tmp_path, *(f"s{i},{'abc'[i % 3]},{'abc'[i % 2]}" for i in range(6)),
                   header="id,label,clean_label")  # fmt: skip
    stated = tmp_path / "classes.txt"
    stated.write_text("c\na\nb\n")
    plain = converted(vectors(tmp_path), tmp_path / "x.h5", labels=table)
    at_once = converted(vectors(tmp_path), tmp_path / "y.h5", labels=table, classes=str(stated))
    later = converted(tmp_path / "x.h5", tmp_path / "z.h5", classes=str(stated))
    assert plain.clean_labels.tolist() == [0, 1] * 3
    for found in (at_once, later):
        assert found.labels.tolist() == [1, 2, 0] * 2 and found.clean_labels.tolist() == [1, 2] * 3
        assert found.record.noise == plain.record.noise and found.record.noise["flipped"] == 4


def test_numbers_that_have_no_names(tmp_path):
    stated = tmp_path / "classes.txt"
    stated.write_text("2\n0\n1\n7\n")
    arrays = {"features": VALUES, "labels": np.arange(6) % 3, "clean_labels": np.full(6, 7)}
    np.savez(tmp_path / "x.npz", **arrays)
    found = converted(tmp_path / "x.npz", tmp_path / "x.h5", classes=str(stated))
    assert found.labels.tolist() == [1, 2, 0] * 2 and found.clean_labels.tolist() == [3] * 6
    for name in ("labels", "clean_labels"):
        np.savez(tmp_path / "x.npz", **{**arrays, name: np.full(6, 2**40)})
        with pytest.raises(InvalidInput, match="outside of 1,000,006 classes"):
            converted(tmp_path / "x.npz", tmp_path / "x.h5", classes=str(stated))


def test_types(make_features, tmp_path):
    source = make_features("a.h5")
    half = converted(source, tmp_path / "b.h5", dtype="float16")
    assert half.dtype == np.float16 and half.record.options["dtype"] == "float16"
    assert half.record.parents[0]["identity"] == read_features(source).record.identity
    assert half.record.model == read_features(source).record.model
    assert converted(tmp_path / "b.h5", tmp_path / "c.h5").record == half.record
    np.save(tmp_path / "x.npy", VALUES.astype(float) * 1e300)
    with pytest.raises(InvalidInput, match="features of 0 are not finite as float32"):
        converted(tmp_path / "x.npy", tmp_path / "d.h5")
    np.save(tmp_path / "x.npy", np.full((2, 2), 7e4, np.float32))
    with pytest.raises(InvalidInput, match="features of 0 are not finite as float16"):
        converted(tmp_path / "x.npy", tmp_path / "d.h5", dtype="float16")


@pytest.mark.parametrize("suffix", EVERY)
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_not_finite_is_named_and_the_old_output_stays(make_features, tmp_path, suffix, wrong):
    def spoil(features, _):
        features[70, 2] = wrong

    bad, good, out = (
        make_features("bad.h5", change=spoil),
        make_features("a.h5"),
        tmp_path / f"b{suffix}",
    )
    convert(good, str(out), ConvertOptions())
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    with pytest.raises(InvalidInput, match=r"bad\.h5: the features of 0070 are not finite"):
        convert(bad, str(out), ConvertOptions())
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before


def test_what_is_not_finite_is_named_in_a_later_block(make_features, tmp_path):
    def spoil(features, _):
        features[70, 2] = np.nan

    wide = make_features("bad.h5", columns=8192, change=spoil)  # 32 rows a block
    with pytest.raises(InvalidInput, match="the features of 0070 are not finite"):
        convert(wide, str(tmp_path / "b.npz"), ConvertOptions())


def test_not_finite_in_text(tmp_path):
    (tmp_path / "x.csv").write_text("id,f0\na,1\nb,nan\n")
    with pytest.raises(InvalidInput, match="the features of b are not finite"):
        converted(tmp_path / "x.csv", tmp_path / "x.h5")
    (tmp_path / "x.jsonl").write_text('{"id": "a", "embedding": [1e999]}\n')
    with pytest.raises(InvalidInput, match="the features of a are not finite"):
        converted(tmp_path / "x.jsonl", tmp_path / "x.h5")
    assert not (tmp_path / "x.h5").exists()


def test_views_travel_where_they_can(tmp_path, caplog):
    views = np.stack([VALUES, -VALUES], axis=1)
    given = converted(vectors(tmp_path), tmp_path / "x.h5")
    held = Features(**{**given.__dict__, "views": lambda rows: iter([views]), "num_views": 2})
    write_features(str(tmp_path / "v.h5"), held)
    half = converted(tmp_path / "v.h5", tmp_path / "v.safetensors", dtype="float16")
    assert (np.concatenate(list(half.views(4))) == views.astype(np.float16)).all() and not caplog.text
    convert(str(tmp_path / "v.h5"), str(tmp_path / "v.npz"), ConvertOptions())
    assert "cannot hold the views" in caplog.text


class Kept(io.BytesIO):
    """Stays open, so that one can see how far it was read."""

    def close(self):
        pass


def test_pipes(tmp_path, monkeypatch):
    text = Path(vectors(tmp_path)).read_bytes()
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=out, isatty=lambda: False))
    stdin = SimpleNamespace(buffer=io.BytesIO(text), isatty=lambda: False)
    monkeypatch.setattr(sys, "stdin", stdin)
    convert("-", None, ConvertOptions(form="jsonl"))
    stream = out.getvalue()
    assert (load(stream)["features"] == VALUES).all()
    stdin.buffer = io.BytesIO(stream)
    convert("-", str(tmp_path / "y.csv"), ConvertOptions(key="x"))
    assert (tmp_path / "y.csv").read_text().startswith("id,x0,x1,x2,x3\ns0,")
    stdin.buffer = Kept(stream)
    convert("-", str(tmp_path / "y.csv"), ConvertOptions(reuse=True))
    assert stdin.buffer.tell() == len(stream)  # else its writer would meet a closed pipe
    stdin.buffer = io.BytesIO(text[:-9])
    with pytest.raises(InvalidInput, match="stdin: line 6 is not JSON"):
        convert("-", None, ConvertOptions(form="jsonl"))
    for start in (text, b"\xef\xbb\xbf\n" + text, b'{"a":1}\n'):
        stdin.buffer = io.BytesIO(start)
        with pytest.raises(InvalidInput, match=r"stdin is not a safetensors file: .*--from jsonl"):
            convert("-", str(tmp_path / "q.h5"), ConvertOptions())
    (tmp_path / "noname").write_bytes(text)
    assert converted(tmp_path / "noname", tmp_path / "z.h5", form="jsonl").rows == 6
    convert(str(tmp_path / "z.h5"), "/dev/null", ConvertOptions())
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_errors_of_names(make_features, tmp_path):
    source, plain = make_features("a.h5"), ConvertOptions()
    (tmp_path / "x.pt").write_bytes(b"x")
    for arguments, kind, message in (
        ((source, str(tmp_path / "b.txt"), plain), UsageError, "no format has the suffix .txt: use"),
        ((source, str(tmp_path / "b"), plain), UsageError, r"the suffix \(none\)"),
        ((source, str(tmp_path / "none/b.npz"), plain), NmlError, "does not exist"),
        (("missing.h5", str(tmp_path), plain), NmlError, "is a folder"),  # before anything is read
        ((str(tmp_path / "c.npz"), str(tmp_path / "b.h5"), plain), InvalidInput, "no such file"),
        ((str(tmp_path / "x.pt"), str(tmp_path / "b.h5"), plain), InvalidInput, "known by its suffix"),
        ((source, str(tmp_path / "b.h5"), ConvertOptions(key="x")), UsageError, "--key is for"),
    ):
        with pytest.raises(kind, match=message):
            convert(*arguments)


def test_the_command(make_features, tmp_path, capsys, monkeypatch):
    source, out = make_features("a.h5"), str(tmp_path / "b.npz")
    assert run(["convert", source, out]) == 0
    with np.load(out) as held:
        assert (held["features"] == read_features(source).matrix()).all()
    assert run(["convert", source, out, "--reuse"]) == 0
    assert f"{out} is up to date" in capsys.readouterr().err
    assert run(["convert", source, str(tmp_path / "b.txt")]) == 2
    assert run(["convert", str(tmp_path / "none.npz"), out]) == 1
    assert "nml convert: " in capsys.readouterr().err
    assert run(["convert", source, out, "--dtype", "int8"]) == 2
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert run(["convert", source]) == 2
    assert "the product is binary" in capsys.readouterr().err


def test_features_are_not_narrowed_in_place(tmp_path):
    np.save(tmp_path / "v.npy", np.ones((4, 3), dtype=np.float32))
    convert(str(tmp_path / "v.npy"), str(tmp_path / "v.h5"), ConvertOptions())
    before = (tmp_path / "v.h5").read_bytes()
    with pytest.raises(UsageError, match="would overwrite an input"):
        convert(str(tmp_path / "v.h5"), str(tmp_path / "v.h5"), ConvertOptions(dtype="float16"))
    assert (tmp_path / "v.h5").read_bytes() == before


def test_another_key_is_not_up_to_date(tmp_path):
    np.save(tmp_path / "v.npy", np.ones((4, 3), dtype=np.float32))
    convert(str(tmp_path / "v.npy"), str(tmp_path / "v.h5"), ConvertOptions())
    for key in ("foo", "bar"):
        asked = ConvertOptions(key=key, reuse=True)
        convert(str(tmp_path / "v.h5"), str(tmp_path / "o.npz"), asked)
        assert key in np.load(tmp_path / "o.npz").files
