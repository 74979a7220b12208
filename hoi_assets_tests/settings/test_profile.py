"""Profiles: what is read, and how every mistake in one is named."""

import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from hoi_assets.cli.exit_codes import ExitCode
from hoi_assets.cli.main import main
from hoi_assets.errors import HoiError
from hoi_assets.publishing.graph import settings_digest
from hoi_assets.settings import PROFILES, ROOT, LocalRepair, Settings, load_settings
from hoi_assets.taxonomy import Taxonomy, load_taxonomy
from hoi_assets.yaml_file import YamlError

TINY = (PROFILES / "tiny.yaml").read_text(encoding="utf-8")


def profile(folder: Path, text: str) -> str:
    path = folder / "own.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(HoiError) as caught:
        load_settings(profile(folder, text))
    return str(caught.value)


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


@pytest.mark.parametrize("name", ["tiny", "full", "paper_detailscribe", "paper_ppv"])
def test_shipped_profile_is_read_without_a_warning(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_settings(name).profile == name


def test_profile_is_taken_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOI_PROFILE", profile(tmp_path, TINY + "threads: 7\n"))
    assert (load_settings().profile, load_settings().threads) == ("own", 7)


def test_unknown_profile_names_those_there_are() -> None:
    with pytest.raises(
        HoiError, match=r"profile 'tinny' not found[\s\S]*full, paper_detailscribe, paper_ppv, tiny"
    ):
        load_settings("tinny")


@pytest.mark.parametrize(
    ("added", "at", "message"),
    [
        ("lora: {rnk: 4}", "lora:", "lora.rnk: is not a known field"),
        ("loras: {rank: 4}", "loras:", "loras: is not a known field"),
        ("lora:\n  seed: 1\n  rank: 999", "  rank:", "lora.rank: Input should be less than or"),
        ("threads: many", "threads:", "threads: Input should be a valid integer"),
        ("sampling:\n  guidance_scale: .nan", "  guidance", "should be a finite number"),
        ("lora: {learning_rate: .inf}", "lora:", "should be a finite number"),
        ("verifier: {}", "verifier: {}", "verifier: is given twice"),
        ("timezone: Mars/Olympus", "timezone:", "timezone: is not a time zone"),
        ("timezone: ../../etc/passwd", "timezone:", "timezone: is not a time zone"),
        ("timezone: America", "timezone:", "timezone: is not a time zone"),
        ("model_budget_gb: 0", "model_budget", "model_budget_gb: Input should be greater than 0"),
        ("candidates: {accepted_goal: 9, budget: 8}", "candidates:", "accepted_goal 9 is larger"),
        ("image_endpoint: {usd_per_million_input_tokens: 1}", "image_end", "priced by usd_per_im"),
        ("critic: {protocol: published}", "critic:", "published needs critic.endpoint"),
        ("lora: {seed: 9223372036854775808}", "lora:", "lora.seed: does not fit into 64 bits"),
        ("lora: {rank: 4}\nlora: {rank: 8}", "lora: {rank: 8", "lora: is given twice"),
        ("lora:\n  rank: 4\n  rank: 8", "  rank: 8", "rank: is given twice"),
        ("1: x", "1: x", "Keys should be strings"),
        ("lora: [1", "lora:", "is not valid YAML"),
    ],
)
def test_mistake_names_file_line_and_field(
    tmp_path: Path, added: str, at: str, message: str
) -> None:
    text = TINY + added + "\n"
    said = refusal(tmp_path, text)
    line = TINY.count("\n") + 1 + added[: added.index(at)].count("\n")
    assert any(message in part for part in said.splitlines())
    assert f"own.yaml:{line}:" in said or "is not valid YAML" in said, said


def test_all_mistakes_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(YamlError) as caught:
        load_settings(profile(tmp_path, TINY + "threads: 0\nlora: {rnk: 1, rank: 0}\n"))
    assert len(caught.value.mistakes) == 3


@pytest.mark.parametrize(("text", "message"), [("", "is empty"), ("- a", "field: value")])
def test_profile_without_fields_is_named(tmp_path: Path, text: str, message: str) -> None:
    assert message in refusal(tmp_path, text)


def test_folder_called_like_a_profile_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").mkdir()
    with pytest.raises(HoiError, match=r"x\.yaml:1: file: is a folder"):
        load_settings(str(tmp_path / "x.yaml"))


@pytest.mark.parametrize(
    "name", ["n" * 300, "n" * 300 + ".yaml", "no/" * 2000 + "x.yaml", "~no/x.yaml"]
)
def test_name_that_no_file_can_have_is_not_found(name: str) -> None:
    with pytest.raises(HoiError, match="not found") as caught:
        load_settings(name)
    assert len(str(caught.value)) < 600


def test_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.yaml")
    path.write_text(TINY, encoding="utf-8")
    with pytest.raises(YamlError, match="profile: "):
        load_settings(str(path))


BOMB = "".join(f"k{n}: &k{n} [{', '.join([f'*k{n - 1}' if n else 'x'] * 9)}]\n" for n in range(12))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, ":6: file: holds more than 200000 values, aliases expanded"),
        ("a: &a [*a]\n", ":1: file: holds itself by an alias"),
        (f"a: {'[' * 5000}", ":1: file: nests deeper than 64 levels"),
        ("a: 1\nb: x\x07y\n", ":2: file: holds the control character U+0007"),
        ("a: 1\na: 2\n", ":2: a: is given twice"),
        (None, ":1: file: is a folder, not a file"),
    ],
)
def test_command_names_file_and_line_of_what_it_cannot_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, said: str
) -> None:
    own = tmp_path / "own.yaml"
    taxonomy = tmp_path / "taxonomy"
    shutil.copytree(ROOT / "data" / "taxonomy", taxonomy)
    for bad in (own, taxonomy / "categories" / "hook.yaml", taxonomy / "grasps.yaml"):
        bad.unlink(missing_ok=True)
        if text is None:
            bad.mkdir()
        else:
            bad.write_text(text, encoding="utf-8")
    # The variable that --profile sets is restored afterwards.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOI_HOME", str(tmp_path / "home"))
        patch.setenv("HOI_PROFILE", "tiny")
        assert main(["stale", "--profile", str(own)]) == ExitCode.USER_ERROR
    told = capsys.readouterr()
    assert told.err.startswith(f"error: {own}{said}") and "correct the lines" in told.err
    assert not told.out and len(told.err.splitlines()) == 2
    with pytest.raises(YamlError) as caught:
        load_taxonomy(taxonomy)
    assert caught.value.mistakes[0].startswith(f"{taxonomy}/categories/hook.yaml{said}")
    with pytest.raises(YamlError) as caught:
        _ = Taxonomy(taxonomy, {}, ()).grasps
    assert caught.value.mistakes[0].startswith(f"{taxonomy}/grasps.yaml{said}")


@pytest.mark.parametrize("path", ["~nosuchuser/taxonomy", "x" * 5000])
def test_path_that_no_file_can_have_is_named(tmp_path: Path, path: str) -> None:
    settings = load_settings(profile(tmp_path, TINY + f"taxonomy: {path}\n"))
    with pytest.raises(HoiError, match="give the path of a file or folder") as caught:
        _ = settings.taxonomy_folder
    assert path[:20] in caught.value.what and len(caught.value.what) < 200


@pytest.mark.parametrize("name", ["UTC", "Europe/Paris", "America/New_York"])
def test_time_zone_of_the_schedules_is_checked(tmp_path: Path, name: str) -> None:
    assert load_settings(profile(tmp_path, f"{TINY}timezone: {name}\n")).timezone == name


def test_former_section_name_is_accepted_with_a_warning_that_names_the_line(tmp_path: Path) -> None:
    text = TINY.replace("redenoising:", "refining:") + "painter: {size: 64x64}\n"
    path = profile(tmp_path, text)
    with pytest.warns(FutureWarning) as warned:
        settings = load_settings(path)
    assert settings.redenoising == load_settings("tiny").redenoising
    assert settings.image_endpoint.size == "64x64"
    said = [str(one.message) for one in warned]
    for one, old, new in zip(
        said, ("painter", "refining"), ("image_endpoint", "redenoising"), strict=True
    ):
        assert one.startswith(f"{path}:{line_of(text, f'{old}:')}: {old}: is called {new} now")


def test_section_under_both_names_is_refused(tmp_path: Path) -> None:
    text = TINY + "refining: {width: 64}\n"
    assert f"own.yaml:{line_of(text, 'refining:')}: refining: is the former name" in refusal(
        tmp_path, text
    )


def test_versions_published_under_a_former_section_name_stay_fresh() -> None:
    """The digests are those of release 0.1."""
    names = ["redenoising", "critic", "rewriter", "image_endpoint"]
    assert settings_digest(load_settings("tiny"), names).startswith("37df5b4da3507636")
    assert settings_digest(load_settings("full"), names).startswith("1960f82dfc3daf62")


def test_option_that_is_left_out_changes_no_digest() -> None:
    tiny, own = load_settings("tiny"), ["redenoising", "critic"]
    added = [*own, "local_repair", "image_editing", "proposer", "anatomy", "landmarks", "vqa_score"]
    assert settings_digest(tiny, added) == settings_digest(tiny, own)
    repairing = tiny.model_copy(update={"local_repair": LocalRepair()})
    assert settings_digest(repairing, added) != settings_digest(tiny, own)


def test_every_field_is_described_in_one_line() -> None:
    def fields(schema: dict[str, Any]) -> dict[str, Any]:
        parts = {"Settings": schema, **schema["$defs"]}
        return {f"{name}.{k}": v for name, p in parts.items() for k, v in p["properties"].items()}

    schema = Settings.model_json_schema()
    sections = {f"Settings.{name}" for name in Settings.model_fields} - {
        f"Settings.{name}" for name, value in schema["properties"].items() if "$ref" not in value
    }
    bare = [
        name
        for name, field in fields(schema).items()
        if name not in sections and not field.get("description")
    ]
    assert not bare
    assert all("\n" not in f.get("description", "") for f in fields(schema).values())


def test_profile_round_trips_through_yaml(tmp_path: Path) -> None:
    settings = load_settings("tiny")
    text = yaml.safe_dump(settings.model_dump(mode="json"))
    assert load_settings(profile(tmp_path, text)) == settings
