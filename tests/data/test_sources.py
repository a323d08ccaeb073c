import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nmlcli.data.generated.menu import GENERATORS
from nmlcli.data.sources import (
    SOURCES,
    SourceOptions,
    check_options,
    expand_pattern,
    find_source,
    open_samples,
)
from nmlcli.errors import InvalidInput, UsageError


def test_the_menu_is_light() -> None:
    heavy = "[m for m in ('numpy', 'PIL', 'torch', 'torchvision', 'h5py') if m in sys.modules]"
    code = f"import sys, nmlcli.data.sources; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("spec", "form"),
    [
        ("-", "stdin"),
        ("builtin:shapes:test", "builtin"),
        ("torchvision:cifar10:test", "torchvision"),
        ("a/b.tar", "archive"),
        ("x-{0..3}.tar", "archive"),
        ("t.CSV", "table"),
        ("t.jsonl", "table"),
        ("p.hdf5", "packed"),
        (".", "folder"),
    ],
)
def test_a_name_has_one_form(spec: str, form: str) -> None:
    assert find_source(spec) is SOURCES[form]


def test_what_has_no_form_is_told_what_would(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="nowhere does not exist"):
        open_samples("nowhere")
    (tmp_path / "f.safetensors").write_bytes(b"")
    with pytest.raises(InvalidInput, match=r"none of the forms of a set.*DIR"):
        open_samples(str(tmp_path / "f.safetensors"))


def test_braces_and_globs_expand_as_in_a_shell(tmp_path: Path) -> None:
    for name in ("s-09.tar", "s-10.tar", "s-11.tar", "t[1].tar"):
        (tmp_path / name).write_bytes(b"")

    def expand(pattern: str) -> list[str]:
        return [Path(name).name for name in expand_pattern(f"{tmp_path}/{pattern}")]

    assert expand("s-{09..11}.tar") == ["s-09.tar", "s-10.tar", "s-11.tar"]
    assert expand("s-{11,09}.tar") == ["s-11.tar", "s-09.tar"]
    assert expand("s-*.tar") == ["s-09.tar", "s-10.tar", "s-11.tar"]
    assert expand("s-{0,1}[019].tar") == ["s-09.tar", "s-10.tar", "s-11.tar"]
    assert expand("t[1].tar") == ["t[1].tar"]
    with pytest.raises(UsageError, match="no range"):
        expand("s-{11..09}.tar")


@pytest.mark.parametrize("name", GENERATORS)
def test_generated_sets_are_what_their_generator_draws(name: str) -> None:
    generator = GENERATORS[name]
    for domain in (None, *generator.domains):
        samples = open_samples(f"builtin:{name}:val" + (f":{domain}" if domain else ""))
        assert len(samples) == generator.splits["val"]
        assert samples.classes == generator.classes
        row = len(samples) - 1
        assert samples.labels[row] == generator.label("val", row)
        assert samples.ids[row] == f"{generator.classes[samples.labels[row]]}/val-{row:06d}"
        drawn = generator.render("val", domain, row)
        assert (np.asarray(samples.read(row)) == drawn).all()
        assert (np.asarray(samples.images(np.array([0, row]))[1]) == drawn).all()
        assert samples.noise["realised"] == 0.0


def test_generated_sets_are_named_alike_however_they_are_written() -> None:
    plain, long = open_samples("builtin:shapes:test"), open_samples("builtin:shapes:test:photo")
    assert str(plain.name) == str(long.name) == "shapes/photo:test"
    assert plain.identity == long.identity
    sketch = open_samples("builtin:shapes:test", SourceOptions(domain="sketch"))
    assert str(sketch.name) == "shapes/sketch:test"
    assert sketch.identity == open_samples("builtin:shapes:test:sketch").identity != plain.identity
    assert sketch.ids == plain.ids
    assert str(open_samples("builtin:textures:train").name) == "textures:train"


def test_other_pixels_are_another_set(monkeypatch) -> None:
    before = open_samples("builtin:glyphs:val").identity
    later = replace(GENERATORS["glyphs"], revision=GENERATORS["glyphs"].revision + 1)
    monkeypatch.setitem(GENERATORS, "glyphs", later)
    assert open_samples("builtin:glyphs:val").identity != before


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("builtin:shape:test", "no builtin set named 'shape'.*shapes"),
        ("builtin:", "no builtin set"),
        ("builtin:shapes", "names no split: choose train"),
        ("builtin:shapes:dev", "no split dev: choose train"),
        ("builtin:shapes:test:photos", "no domain photos: choose photo"),
        ("builtin:textures:test:photo", "no domain photo: leave it out"),
        ("builtin:shapes:test:photo:x", "too many parts"),
    ],
)
def test_a_wrong_builtin_names_the_choices(spec: str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        open_samples(spec)


def test_two_domains_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match="of another domain"):
        open_samples("builtin:shapes:test:photo", SourceOptions(domain="sketch"))


@pytest.mark.parametrize(
    ("specs", "given", "refused"),
    [
        (["builtin:shapes:train"], {"root": "photos"}, "root"),
        (["builtin:shapes:train"], {"group_column": "key"}, "group-column"),
        (["builtin:shapes:train"], {"labels": "noisy.csv", "label_column": "fine"}, None),
        (["builtin:shapes:train"], {"labels": "noisy.csv", "text_column": "words"}, "text-column"),
        (["builtin:shapes:train"], {"captions": "words.csv", "text_column": "words"}, None),
        (["builtin:shapes:train"], {"captions": "words.csv", "label_column": "fine"}, "label-column"),
        (["NAME=builtin:shapes:train", "part-{0..3}.tar"], {"image_column": "file"}, "image-column"),
        (["builtin:shapes:train", "set.csv"], {"image_column": "file", "root": "photos"}, None),
        (["-"], {"text2_column": "answer"}, None),
        (["builtin:shapes:train", "missing"], {"root": "photos"}, None),
        (["builtin:shapes:train"], {"download": True, "data_dir": "sets"}, None),
    ],
)
def test_options_on_tables_are_refused_where_none_has_a_use_for_them(specs, given, refused) -> None:
    options = SourceOptions(**given)
    if refused is None:
        check_options(specs, options)
        return
    with pytest.raises(UsageError, match=f"^--{refused} does not apply to .*: it is for tables$"):
        check_options(specs, options)
