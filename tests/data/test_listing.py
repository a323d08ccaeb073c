import io
import tarfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nmlcli.data.archives import list_archives
from nmlcli.data.images import decode
from nmlcli.data.listing import check_ids, ids_of_paths
from nmlcli.data.samples import Samples, SetName
from nmlcli.errors import InvalidInput

PATHS = st.lists(
    st.from_regex(r"[ab]/[xy]\.(png|jpg)", fullmatch=True), min_size=1, max_size=8, unique=True
)


@given(PATHS)
def test_ids_of_one_source_are_unique_and_as_short_as_can_be(paths: list[str]) -> None:
    ids = ids_of_paths(paths)
    assert len(set(ids)) == len(ids)
    stems = [path[:-4] for path in paths]
    assert ids == [
        stem if stems.count(stem) == 1 else path for stem, path in zip(stems, paths, strict=True)
    ]


@given(st.lists(PATHS, min_size=1, max_size=3))
def test_ids_of_several_parts_are_unique(parts: list[list[str]]) -> None:
    paths = [path for part in parts for path in part]
    names = [f"part{number}" for number, part in enumerate(parts) for _ in part]
    ids = ids_of_paths(paths, names)
    assert len(set(ids)) == len(ids)


@given(st.integers(1, 30), st.data())
def test_a_selection_of_a_selection_reads_the_right_samples(count: int, data: st.DataObject) -> None:
    rows = st.lists(st.integers(0, count - 1), min_size=1, unique=True)
    ids, classes = [f"i{n}" for n in range(count)], tuple(map(str, range(count)))
    samples = Samples(SetName("s"), "s", ids, np.arange(count), classes, lambda rows: rows.tolist())
    first = np.array(data.draw(rows))
    second = np.array(data.draw(st.lists(st.integers(0, len(first) - 1), min_size=1)))
    taken = samples.take(first).take(second)
    wanted = first[second].tolist()
    assert [taken.read(row) for row in range(len(taken))] == wanted
    assert taken.images(np.arange(len(taken))) == wanted
    assert list(taken.ids) == [f"i{n}" for n in wanted]
    assert taken.labels.tolist() == wanted


def test_an_identity_tells_apart_what_looks_alike_when_joined() -> None:
    def identity(ids: list[str], labels: np.ndarray | None = None, **more: object) -> str:
        return Samples(SetName("s"), "s", ids, labels, None, list, **more).identity

    numbers = np.array([1, 2])

    found = {
        identity(["a", "b"]), identity(["ab"]), identity(['a","b']), identity(["b", "a"]),
        identity(["a", "b"], texts=["", ""]), identity(["a", "b"], sizes=numbers),
        identity(["a", "b"], numbers), identity(["a", "b"], clean_labels=numbers),
        identity(["a", "b"], contents=("x",)), identity(["a", "b"], contents=("x", "")),
    }  # fmt: skip
    assert len(found) == 10


def test_equal_ids_are_an_error_that_names_three() -> None:
    with pytest.raises(InvalidInput, match=r"s: ids repeat: a, b, c and 1 more"):
        check_ids(list("abcdabcde"), "s")


def _encoded(form: str) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, form)
    return out.getvalue()


def _packed() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("a/1.png", "b/" + "x" * 120 + ".png"):
            member = tarfile.TarInfo(name)
            member.size = len(IMAGES["PNG"])
            tar.addfile(member, io.BytesIO(IMAGES["PNG"]))
    return out.getvalue()


IMAGES = {form: _encoded(form) for form in ("PNG", "JPEG", "WEBP", "GIF", "TIFF")}
DAMAGE = st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=4)


def _damaged(data: bytes, damage: list[tuple[int, int]], kept: float) -> bytes:
    broken = bytearray(data)
    for place, value in damage:
        broken[place % len(broken)] = value
    return bytes(broken[: int(kept * len(broken))])


@pytest.mark.filterwarnings("ignore")
@given(st.sampled_from(sorted(IMAGES)), DAMAGE, st.sampled_from([1, 1, 0.99, 0.5]))
def test_a_damaged_image_is_read_or_refused(form: str, damage, kept: float) -> None:
    try:
        assert decode(_damaged(IMAGES[form], damage, kept), "a", "f").mode == "RGB"
    except InvalidInput as error:
        assert "sample a of f" in str(error)


@pytest.mark.filterwarnings("ignore")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(DAMAGE, st.sampled_from([1, 1, 0.99, 0.5]))
def test_a_damaged_tar_is_read_or_refused(tmp_path, damage, kept: float) -> None:
    path = tmp_path / "d.tar"
    path.write_bytes(_damaged(_packed(), damage, kept))
    try:
        samples = list_archives(str(path), [str(path)])
        assert all(samples.read(row).mode == "RGB" for row in range(len(samples)))
    except InvalidInput as error:
        assert "d.tar" in str(error)
