"""Promises of links: secret, one per rater, replaceable."""

from pathlib import Path

import pytest

from hoi_assets.errors import HoiError
from hoi_assets.rating.raters import find_rater, make_links, read_raters


def token(link: str) -> str:
    return link.rstrip("/").rsplit("/", 1)[1]


def test_link_leads_to_its_rater_and_its_secret_is_not_kept(pairwise: Path) -> None:
    made = make_links(pairwise, ["anna", "ben"], "http://127.0.0.1:9000/")
    assert all(link.startswith("http://127.0.0.1:9000/r/") for link in made.values())
    assert {find_rater(pairwise, token(link)): name for name, link in made.items()} == {
        "anna": "anna",
        "ben": "ben",
    }
    kept = (pairwise / "raters.json").read_text(encoding="utf-8")
    assert all(token(link) not in kept for link in made.values())
    assert (pairwise / "raters.json").stat().st_mode & 0o077 == 0


def test_unknown_tokens_lead_nowhere(pairwise: Path) -> None:
    assert find_rater(pairwise, "anything") is None
    make_links(pairwise, ["anna"])
    known = read_raters(pairwise)
    for guess in ("", "anna", known["anna"], "é"):
        assert find_rater(pairwise, guess) is None


def test_new_link_replaces_the_lost_one_only(pairwise: Path) -> None:
    first = make_links(pairwise, ["anna", "ben"])
    second = make_links(pairwise, ["anna"])
    assert find_rater(pairwise, token(first["anna"])) is None
    assert find_rater(pairwise, token(second["anna"])) == "anna"
    assert find_rater(pairwise, token(first["ben"])) == "ben"


@pytest.mark.parametrize("name", ["", "a b", "../x", "x" * 41, "anna@example.org", "a\n"])
def test_names_that_are_no_pseudonyms_are_refused(pairwise: Path, name: str) -> None:
    with pytest.raises(HoiError, match="not a pseudonym"):
        make_links(pairwise, [name])
    assert read_raters(pairwise) == {}


def test_links_need_a_study_and_a_rater(pairwise: Path, tmp_path: Path) -> None:
    with pytest.raises(HoiError, match="no study at"):
        make_links(tmp_path / "nowhere", ["anna"])
    with pytest.raises(HoiError, match="no rater"):
        make_links(pairwise, [])
