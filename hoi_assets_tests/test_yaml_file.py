"""Every mistake in a YAML file is named by file, line and field; none crashes or hangs a reader."""

import os
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from hoi_assets.yaml_file import MAX_BYTES, MAX_LISTED, YamlError, YamlFile, read_yaml

LETTERS = "abcdefghijkl"


class Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    sizes: tuple[int, ...] = ()


class Shelf(BaseModel):
    model_config = ConfigDict(extra="forbid")
    entries: dict[str, Entry]


def mistakes(path: Path) -> list[str]:
    """Each without the file's name: `line: field: problem`."""
    found: list[str] = []
    assert YamlFile.read(path, found) is None
    assert all(one.startswith(f"{path}:") for one in found)
    return [one.removeprefix(f"{path}:") for one in found]


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "x.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in pairwise(LETTERS)
)
LADDER = "l: &l [1]\n" + "".join(f"l{n}: &l{n} [*l{n - 1 if n else ''}]\n" for n in range(100))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "6: file: holds more than 200000 values"),
        ("a: &a [*a]", "1: file: holds itself by an alias"),
        ("x: 1\na: &a\n  b: *a", "2: file: holds itself by an alias"),
        (f"a: 1\nx: {'[' * 5000}{']' * 5000}", "2: file: nests deeper than 64 levels"),
        (f"x: {'{a: ' * 70}1{'}' * 70}", "1: file: nests deeper than 64 levels"),
        ("[" * 1_000_000, "1: file: nests deeper than 64 levels"),
        (LADDER, ": file: nests deeper than 64 levels by aliases"),
        ("a: 1\nb: x\x07y", "2: file: holds the control character U+0007"),
        ('a: 1\nb: "x\\x07y"', "2: file: holds the control character U+0007"),
        ("a: 1\nb: \x00", "2: file: holds the control character U+0000"),
        ("a: x\u009by", "1: file: holds the control character U+009B"),
        ("a: 1\nb: x\u2028y", "2: file: holds the control character U+2028"),
        ('a: 1\nb: "x\\Ly"', "2: file: holds the control character U+2028"),
        ('a: 1\nb: "x\\Ny"', "2: file: holds the control character U+0085"),
        ("a: 1\nb: x\ufeffy", "2: file: holds the control character U+FEFF"),
        ("a: 1\nb: 0x" + "f" * 100_000, "2: file: '0xfff"),
        ("a: 1\n" + "k" * 5000 + ": 1", "2: file: is not valid YAML"),
        (f"a: 1\n? {'k' * 5000}\n: {{b: 1, b: 2}}", "3: b: is given twice"),
        ("a: &a {<<: *a}", "1: file: holds itself by an alias"),
        ("".join(" " * n + "k:\n" for n in range(2000)), "65: file: nests deeper than 64 levels"),
        ("a: 1\nb: {c: 1, d: 2, c: 3}", "2: c: is given twice"),
        ("a: 1\nb: 2\na: 3", "3: a: is given twice"),
        ("a: 1\nb: 2020-13-45", "2: file: '2020-13-45' is not a valid timestamp"),
        ("a: 1\nb: " + "9" * 5000, "2: file: '9999"),
        ("a: !!bool maybe", "1: file: 'maybe' is not a valid bool"),
        ("a: !!int ''", "1: file: '' is not a valid int"),
        ("a: !!python/object/apply:os.system [ls]", "1: file: is not valid YAML: could not determ"),
        ("? [a, b]\n: c", "1: file: is not valid YAML: found unhashable key"),
        ("a: 1\n---\nb: 2", "2: file: is not valid YAML: but found another document"),
        ("a: *b", "1: file: is not valid YAML: found undefined alias"),
        ("<<: 3", "1: file: is not valid YAML: expected a mapping"),
        ('a: "\\ud800"', "1: file: "),
        (b"\xff\xfe", "1: file: is not UTF-8 text"),
        (b"a: 1 # " + b"x" * MAX_BYTES, "1: file: is larger than 4 MiB"),
        ("", "1: file: is empty"),
        ("- a", "1: file: must hold `field: value` lines"),
    ],
)
def test_unusable_file_is_refused_with_its_line(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    found = mistakes(written(tmp_path, text))
    assert len(found) == 1
    assert message in found[0]


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    for name, message in (
        ("folder.yaml", "is a folder, not a file"),
        ("pipe.yaml", "is not a regular file"),
        ("none.yaml", "is missing"),
        ("x" * 300 + ".yaml", ""),
    ):
        assert mistakes(tmp_path / name) == [f"1: file: {message}"] or not message


def test_anchors_merges_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    text = "\ufeffbase: &base {p: 1, q: 1}\nown: {<<: *base, q: 2}\nlist: [*base, *base]\n"
    found: list[str] = []
    file = YamlFile.read(written(tmp_path, text), found)
    assert file is not None and not found
    assert file.data["own"] == {"p": 1, "q": 2}
    assert file.line(("own", "q")) == 2


def test_fields_are_named_with_their_lines(tmp_path: Path) -> None:
    text = "entries:\n  a: {name: x}\n  b:\n    nam: y\n    sizes: [1, two]\n"
    with pytest.raises(YamlError) as caught:
        read_yaml(written(tmp_path, text), Shelf, "correct them", "the shelf")
    path = tmp_path / "x.yaml"
    assert caught.value.mistakes == (
        f"{path}:3: entries.b.name: is missing",
        f"{path}:5: entries.b.sizes.1: Input should be a valid integer, unable to parse string as "
        "an integer (found 'two')",
        f"{path}:4: entries.b.nam: is not a known field",
    )
    assert "3 mistakes in the shelf:" in caught.value.what
    assert caught.value.remedy == "correct them"


def test_message_stays_short_however_many_mistakes(tmp_path: Path) -> None:
    text = "entries:\n" + "".join(f"  e{n}: {'z' * 500}\n" for n in range(1000))
    with pytest.raises(YamlError) as caught:
        read_yaml(written(tmp_path, text), Shelf, "correct them", "the shelf")
    assert len(caught.value.mistakes) == 1000
    assert "and 980 more" in str(caught.value)
    assert len(str(caught.value)) < (MAX_LISTED + 3) * 400
