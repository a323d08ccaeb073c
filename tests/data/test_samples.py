import pytest

from nmlcli.data.samples import SetName, split_name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("pacs/sketch.tar", "pacs/sketch"),
        ("../shared/data/pacs/photo-train.tar", "pacs/photo:train"),
        ("cifar10/test.tar", "cifar10:test"),
        ("data/cifar10/train", "cifar10:train"),
        ("flowers", "flowers"),
        ("flowers/", "flowers"),
        ("../flowers", "flowers"),
        ("/flowers", "flowers"),
        ("flowers-val.csv", "flowers:val"),
        ("imagenet/train-{000..011}.tar", "imagenet:train"),
        ("imagenet/*.tar", "imagenet"),
        ("cifar10/{test,val}.tar", "cifar10"),
        ("my pets/no. 1.h5", "my-pets/no.-1"),
    ],
)
def test_a_set_is_named_by_its_path(path: str, name: str) -> None:
    assert str(SetName.of_path(path)) == name


def test_the_current_folder_names_what_nothing_else_does(tmp_path, monkeypatch) -> None:
    (tmp_path / "birds").mkdir()
    monkeypatch.chdir(tmp_path / "birds")
    assert str(SetName.of_path(".")).endswith("/birds")
    assert str(SetName.of_path("test.tar")) == "birds:test"


@pytest.mark.parametrize("name", ["a", "a/b", "a:c", "a/b:c", "no.1/x-y:test"])
def test_a_given_name_is_taken_off_and_comes_back(name: str) -> None:
    found, spec = split_name(f"{name}=dir/x=1.tar")
    assert (str(found), spec) == (name, "dir/x=1.tar")
    assert SetName.parse(name) == found


@pytest.mark.parametrize(
    "spec", ["x.tar", "./a=b.tar", "/a=b", "a/b/c=d", "a b=c", "=x", "builtin:a:b"]
)
def test_what_is_no_name_stays(spec: str) -> None:
    assert split_name(spec) == (None, spec)


def test_an_existing_path_is_no_name(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b").mkdir()
    assert split_name("a=b") == (None, "a=b")
