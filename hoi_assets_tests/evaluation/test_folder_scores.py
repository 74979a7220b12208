"""`hoi score` on folders good and bad, with the weights that are stored with the project."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from PIL import Image

from hoi_assets.cli.exit_codes import ExitCode
from hoi_assets.cli.main import main
from hoi_assets.errors import HoiError
from hoi_assets.evaluation.folder_reading import prompt_problem, read_folder
from hoi_assets.evaluation.folder_scores import (
    read_scores,
    scores_digest,
    summarise_folder,
    with_percentiles,
    write_scores,
)
from hoi_assets.evaluation.reproduction import check_reference, read_reference
from hoi_assets.hashing import digest_pixels
from hoi_assets.picture_files import open_picture
from hoi_assets.settings import ROOT, load_settings
from hoi_assets_tests.engines.small_judges import make_vilt, picture
from hoi_assets_tests.engines.test_blip_vqa import make_blip_vqa
from hoi_assets_tests.llm.chat_server import KEY, Answer, Server

POOL = ROOT / "data" / "pool" / "images"
TINY = ROOT / "data" / "profiles" / "tiny.yaml"
PROMPTS = {
    "reference-000005": "a right hand with tan skin presses a red rubber bell with one finger",
    "reference-000011": "a right hand with brown skin grips a black plastic book",
    "reference-000014": "a left hand with tan skin cups a green rubber apple",
    "reference-000002": "a right hand carries a white stick on hooked fingers",
    "reference-000003": "a purple rubber stick, a right hand with dark skin carries it",
}


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOI_PROFILE", "tiny")
    monkeypatch.setenv("HOI_API_KEY", KEY)


@pytest.fixture
def judge_server() -> Iterator[Any]:
    servers: list[Server] = []

    def start(*replies: Any) -> Server:
        def behaviour(request: dict[str, Any], number: int) -> Answer:
            reply = replies[min(number, len(replies) - 1)]
            return Answer(reply if isinstance(reply, str) else json.dumps(reply))

        servers.append(Server(behaviour))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def write_profile(folder: Path, models: dict[str, Any] | None = None, **sections: Any) -> str:
    """The tiny profile without what answers questions and without reference pictures, with further
    models and sections."""
    profile = yaml.safe_load(TINY.read_text(encoding="utf-8"))
    profile["models"] |= {"critic": None, "component_examiner": None, **(models or {})}
    path = folder / "own.yaml"
    content = {**profile, "evaluation": {"reference_pool": None}, **sections}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def copy_pictures(folder: Path, names: dict[str, str] | None = None) -> Path:
    """Pictures of the pool under names of one's own; a name may lie in a sub-folder."""
    for scene in PROMPTS:
        target = folder / (names or {}).get(scene, f"{scene}.webp")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(POOL / f"{scene}.webp", target)
    return folder


def write_jsonl(path: Path, *rows: Any) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def plain(tmp_path: Path) -> tuple[Path, Path]:
    rows = [{"file": f"{scene}.webp", "prompt": prompt} for scene, prompt in PROMPTS.items()]
    return copy_pictures(tmp_path / "pictures"), write_jsonl(tmp_path / "prompts.jsonl", *rows)


def score(images: Path, prompts: Path, out: Path, *more: str) -> pl.DataFrame:
    arguments = ["score", "--images", str(images), "--prompts", str(prompts), "--out", str(out)]
    assert main([*arguments, *more]) == 0
    return (pl.read_parquet if out.suffix == ".parquet" else pl.read_csv)(out)


def record_beside(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out.with_name(f"{out.stem}.record.json").read_text("utf-8"))
    return found


def values(table: pl.DataFrame) -> dict[tuple[str, str], float]:
    """By prompt and metric."""
    return {
        (row["prompt"], row["metric"]): row["value"]
        for row in table.drop_nulls("value").iter_rows(named=True)
    }


# --- scoring --------------------------------------------------------------------------------------


def test_scores_depend_neither_on_names_nor_on_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = write_profile(tmp_path)
    images, prompts = plain(tmp_path)
    first = score(images, prompts, tmp_path / "a.parquet", "--profile", profile)
    assert set(first["metric"]) == {"clip_score", "image_reward"}
    assert first.height == 10 and set(first["status"]) == {"accepted"}
    # Nothing is known of the first run there.
    monkeypatch.setenv("HOI_HOME", str(tmp_path / "other_home"))
    order = list(reversed(PROMPTS))
    names = {scene: f"{place % 2}/{place} é.webp" for place, scene in enumerate(order)}
    renamed = copy_pictures(tmp_path / "renamed", names)
    lines = ["file,note,prompt", *(f'"{names[s]}",x,"{PROMPTS[s]}"' for s in PROMPTS)]
    (tmp_path / "prompts.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    second = score(renamed, tmp_path / "prompts.csv", tmp_path / "b.csv", "--profile", profile)
    assert values(second) == values(first)
    assert scores_digest(second) == scores_digest(first)
    a, b = record_beside(tmp_path / "a.parquet"), record_beside(tmp_path / "b.csv")
    assert a["output"]["scores"] == b["output"]["scores"] and a["summary"] == b["summary"]
    assert a["inputs"]["content"] == b["inputs"]["content"]
    said = capsys.readouterr()
    assert "clip_score" in said.out and "NOT AS EXPECTED" not in said.err


def test_scores_are_those_of_the_first_line(tmp_path: Path) -> None:
    """By the same code: what the scorecard would say of the same pictures."""
    from hoi_assets.evaluation.run_metrics import score_images
    from hoi_assets.store.versions import Store

    profile = write_profile(tmp_path)
    images, prompts = plain(tmp_path)
    found = values(score(images, prompts, tmp_path / "a.parquet", "--profile", profile))
    store = Store(tmp_path / "line")
    rows = [
        {
            **dict.fromkeys(("method", "category", "seen", "evaluation_prompt_id", "image_id")),
            **dict.fromkeys(("object", "colour", "side")),
            "suite": "hoi",
            "pixels": store.images.put(open_picture(POOL / f"{scene}.webp")),
            "prompt": prompt,
        }
        for scene, prompt in PROMPTS.items()
    ]
    rows.sort(key=lambda row: (row["pixels"], row["prompt"]))
    settings = load_settings(profile)
    settings = settings.model_copy(
        update={"models": settings.models.model_copy(update={"examiner": None})}
    )
    line = score_images(store, settings, pl.DataFrame(rows), None, lambda text: None)
    by_prompt = [rows[place // 2]["prompt"] for place in range(line.height)]
    pairs = zip(by_prompt, line["metric"], strict=True)
    assert dict(zip(pairs, line["value"], strict=True)) == found


def test_scored_again_nothing_is_computed_and_no_picture_is_copied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = write_profile(tmp_path)
    images, prompts = plain(tmp_path)
    first = score(images, prompts, tmp_path / "a.parquet", "--profile", profile)
    capsys.readouterr()
    assert score(images, prompts, tmp_path / "b.parquet", "--profile", profile).equals(first)
    assert "images scored" not in capsys.readouterr().out
    assert not list((tmp_path / "home").rglob("*.png"))


def test_record_holds_versions_hardware_weights_hashes_and_reference_pictures(
    tmp_path: Path,
) -> None:
    images, prompts = plain(tmp_path)
    out = tmp_path / "scores.parquet"
    score(images, prompts, out, "--profile", write_profile(tmp_path))
    record = record_beside(out)
    assert record["libraries"]["torch"] and record["libraries"]["transformers"]
    assert record["hardware"]["cpu_capability"] and record["hardware"]["threads"] == 2
    assert len(record["models"]["clip_score"]["digest"]) == 64
    assert len(record["inputs"]["pixels"]) == 5
    reference = record["reference_pictures"]
    assert reference["standing"] == "as expected"
    assert all(len(one["found"]) == 3 for one in reference["metrics"])
    standings = {one["metric"]: one["standing"] for one in reference["metrics"]}
    assert standings == {"clip_score": "as expected", "image_reward": "as expected"}
    assert str(tmp_path) not in json.dumps(record)


def test_blip_vqa_and_components_are_scored_where_their_models_are_named(tmp_path: Path) -> None:
    models = {
        "blip_vqa": {"source": str(make_blip_vqa(tmp_path / "blip"))},
        "critic": {"source": str(make_vilt(tmp_path / "critic", ("no", "yes")))},
    }
    images, prompts = plain(tmp_path)
    out = tmp_path / "scores.parquet"
    scores = score(images, prompts, out, "--profile", write_profile(tmp_path, models))
    own = scores.filter(pl.col("metric") == "blip_vqa")
    assert own.height == 5 and own["value"].is_between(0, 1).all()
    share = scores.filter(pl.col("metric") == "component_accuracy")
    assert share.height == 5 and share["value"].is_between(0, 1).all()
    # Weights that nobody scored the reference pictures with are no mistake.
    standings = {
        one["metric"]: one["standing"]
        for one in record_beside(out)["reference_pictures"]["metrics"]
    }
    assert standings["blip_vqa"] == standings["component_accuracy_p_yes"] == "no expectation"
    assert standings["clip_score"] == "as expected"


def test_judge_rates_and_one_that_answers_prose_has_no_score(
    tmp_path: Path, judge_server: Any
) -> None:
    images, prompts = plain(tmp_path)
    server = judge_server({"rating": 4, "shows": True}, "A lovely picture, 5 out of 5!")
    judge = {"endpoint": server.url, "model": "m", "concurrency": 1, "max_attempts": 2}
    out = tmp_path / "scores.parquet"
    scores = score(images, prompts, out, "--profile", write_profile(tmp_path, judge=judge))
    rated = scores.filter(pl.col("metric") == "judge_rating")
    assert sorted(rated["status"]) == ["accepted"] + ["failed"] * 4
    assert rated["value"].drop_nulls().to_list() == [4.0]
    assert rated.filter(pl.col("status") == "failed")["reason"].str.contains("unusable_reply").all()
    (told,) = [row for row in record_beside(out)["summary"] if row["metric"] == "judge_rating"]
    assert (told["n"], told["missing"], told["mean"]) == (1, 4, 4.0)
    assert KEY not in out.with_name("scores.record.json").read_text("utf-8")


def test_percentiles_are_among_another_table_of_scores(tmp_path: Path) -> None:
    images, prompts = plain(tmp_path)
    known = pl.DataFrame({"metric": ["clip_score"] * 4, "value": [-1.0, 0.0, 8.0, 9.0]})
    known.write_csv(tmp_path / "known.csv")
    more = ("--reference", str(tmp_path / "known.csv"), "--profile", write_profile(tmp_path))
    scores = score(images, prompts, tmp_path / "a.parquet", *more)
    assert set(scores.filter(pl.col("metric") == "clip_score")["percentile"]) == {50.0}
    assert scores.filter(pl.col("metric") == "image_reward")["percentile"].null_count() == 5


def test_percentiles_are_among_the_profiles_reference_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, prompts = plain(tmp_path)
    assert main(["score", "--images", str(images), "--prompts", str(prompts)]) == 0
    (out,) = (tmp_path / "home" / "scores").glob("pictures-*.parquet")
    assert pl.read_parquet(out)["percentile"].is_between(0, 100).all()
    assert "data/pool (split reference)" in capsys.readouterr().out


def test_other_scores_of_the_reference_pictures_are_said_loudly_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hoi_assets.evaluation import reproduction

    kept = read_reference()
    kept["expected"]["clip_score"]["values"][1] += 0.1
    kept["pictures"][2]["pixels"] = "0" * 64
    changed = tmp_path / "reference.json"
    changed.write_text(json.dumps(kept), encoding="utf-8")
    monkeypatch.setattr(reproduction, "REFERENCE_FILE", changed)
    images, prompts = plain(tmp_path)
    out = tmp_path / "scores.csv"
    assert score(images, prompts, out, "--profile", write_profile(tmp_path)).height == 10
    said = capsys.readouterr().err
    assert "NOT AS EXPECTED: clip_score of the reference pictures differs: by 0.1" in said
    assert "other pixels: reference-000014" in said
    reference = record_beside(out)["reference_pictures"]
    assert reference["standing"] == "differs" and "reference-000014" in reference["problem"]
    changed.unlink()
    score(images, prompts, out, "--profile", str(tmp_path / "own.yaml"))
    assert "NOT AS EXPECTED: reference pictures: " in capsys.readouterr().err


def test_stored_weights_score_the_reference_pictures_as_expected() -> None:
    """Where weights change: python -m hoi_assets.evaluation.reproduction."""
    checked, problem = check_reference(load_settings("tiny"))
    assert problem is None
    assert {one.standing for one in checked} == {"as expected"}


# --- bad input ------------------------------------------------------------------------------------


def test_bad_files_and_lines_are_recorded_with_reason_and_the_rest_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = copy_pictures(tmp_path / "pictures")
    (images / "notes.md").write_text("not a picture", encoding="utf-8")
    (images / "fake.png").write_text("not a picture either", encoding="utf-8")
    (images / "cut.webp").write_bytes((POOL / "reference-000002.webp").read_bytes()[:200])
    (images / ".hidden").write_text("of the system", encoding="utf-8")
    (images / "not utf-8 \udcff.png").write_text("x", encoding="utf-8")
    (images / "nowhere.png").symlink_to(images / "gone")
    prompts = write_jsonl(
        tmp_path / "prompts.jsonl",
        {"file": "reference-000005.webp", "prompt": PROMPTS["reference-000005"]},
        '{"file": "reference-000011.webp", "prompt": ',
        {"file": "reference-000014.webp"},
        {"file": "reference-000002.webp", "prompt": "word " * 10_000},
        {"file": "reference-000003.webp", "prompt": "a hand\x00"},
        "",
        {"file": "fake.png", "prompt": "a hand"},
        {"file": "cut.webp", "prompt": "a hand"},
        {"file": "notes.md", "prompt": "a hand"},
        {"file": "gone.png", "prompt": "a hand"},
        {"file": "../pictures/reference-000011.webp", "prompt": "a hand"},
        {"prompt": "a hand"},
        ["a hand"],
        {"file": "e.png", "prompt": 7},
    )
    scores = score(images, prompts, tmp_path / "a.parquet", "--profile", write_profile(tmp_path))
    failed = scores.filter(pl.col("status") == "failed")
    assert failed["metric"].null_count() == failed.height
    assert {
        (row["file"], row["line"]): row["reason"].split(":")[0]
        for row in failed.iter_rows(named=True)
    } == {
        ("", 2): "broken_line",
        ("reference-000011.webp", None): "no_prompt",
        ("reference-000014.webp", 3): "missing_key",
        ("reference-000002.webp", 4): "too_many_words",
        ("reference-000003.webp", 5): "control_character",
        ("fake.png", 7): "unreadable_picture",
        ("cut.webp", 8): "unreadable_picture",
        ("notes.md", 9): "unreadable_picture",
        ("gone.png", 10): "missing_file",
        ("../pictures/reference-000011.webp", 11): "missing_file",
        ("not utf-8 \\xff.png", None): "file_name",
        ("nowhere.png", None): "no_prompt",
        ("", 12): "missing_key",
        ("", 13): "no_object",
        ("e.png", 14): "no_text",
    }
    accepted = scores.filter(pl.col("status") == "accepted")
    assert set(accepted["file"]) == {"reference-000005.webp"} and accepted.height == 2
    assert len(record_beside(tmp_path / "a.parquet")["inputs"]["failed"]) == 15
    said = capsys.readouterr()
    assert "15 files or lines could not be scored" in said.out
    assert "prompts.jsonl:3: reference-000014.webp: missing_key: prompt" in said.out + said.err


def test_folder_without_one_usable_picture_ends_with_1_and_its_reasons(tmp_path: Path) -> None:
    images = tmp_path / "pictures"
    images.mkdir()
    (images / "a.png").write_text("no picture", encoding="utf-8")
    prompts = write_jsonl(tmp_path / "p.jsonl", {"file": "a.png", "prompt": "a hand"})
    out = tmp_path / "a.csv"
    arguments = ["--images", str(images), "--prompts", str(prompts), "--out", str(out)]
    assert main(["score", *arguments, "--profile", write_profile(tmp_path)]) == 1
    assert pl.read_csv(out)["reason"][0].startswith("unreadable_picture")


def lines(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("p.jsonl", '{"file": "1.png", "prompt": "a"}\n\n{"file": "1.png", "prompt": "b"}',
         "lines 1 and 3 both name 1.png"),
        ("p.csv", "name,prompt\n1.png,a", "no column 'file'"),
        ("p.csv", f"file,prompt,{'x' * 140_000}\n1.png,a", "field larger than"),
        ("p.txt", "a\nb", "has 2 lines, the folder 3 pictures"),
        ("p.txt", "a\nb\nc", "10.png comes before 2.png as text"),
        ("p.yaml", "- a", "not .yaml"),
    ],
)  # fmt: skip
def test_what_can_be_read_in_two_ways_is_refused_at_the_door(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, told: str
) -> None:
    images = tmp_path / "pictures"
    images.mkdir()
    for number in (1, 2, 10):
        picture(number).save(images / f"{number}.png")
    prompts = lines(tmp_path, name, text)
    assert (
        main(["score", "--images", str(images), "--prompts", str(prompts)]) == ExitCode.USER_ERROR
    )
    assert told in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--images", "nowhere"], "nowhere is not a folder"),
        (["--prompts", "nowhere.jsonl"], "nowhere.jsonl is not a file"),
        (["--out", "scores.xlsx"], "scores are written as .parquet or .csv"),
        (["--reference", "known.parquet"], "known.parquet is not a file"),
    ],
)
def test_mistakes_in_the_arguments_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    images = tmp_path / "pictures"
    images.mkdir()
    prompts = lines(tmp_path, "p.txt", "a hand")
    given = ["--images", str(images), "--prompts", str(prompts), *arguments]
    assert main(["score", *given]) == ExitCode.USER_ERROR
    assert told in capsys.readouterr().err


def test_lines_of_a_text_are_the_pictures_in_sorted_order(tmp_path: Path) -> None:
    images = tmp_path / "pictures"
    images.mkdir()
    for number in (2, 1, 10):
        picture(number).save(images / f"{number:03}.png")
    (images / "about.md").write_text("no picture", encoding="utf-8")
    prompts = lines(images, "prompts.txt", "one\r\ntwo\r\n\u200bten\r\n")
    found = {one.file: one.prompt for one in read_folder(images, prompts)}
    assert found == {
        "001.png": "one", "002.png": "two", "010.png": "\u200bten", "about.md": None,
    }  # fmt: skip


def test_picture_is_read_as_its_camera_held_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(0, (40, 20)).save(tmp_path / "a.png", exif=exif)
    turned = open_picture(tmp_path / "a.png")
    assert turned.size == (20, 40)
    assert digest_pixels(turned) != digest_pixels(picture(0, (40, 20)))


def test_picture_whose_exif_cannot_be_written_back_is_refused_alone(tmp_path: Path) -> None:
    # An ASCII value where a number belongs: Pillow raises struct.error as it turns the picture.
    tags = ("0125 0002 00000015 00000026", "0112 0003 00000001 00060000")
    head = "4d4d 002a 00000008 0002"
    exif = b"Exif\0\0" + bytes.fromhex(" ".join([head, *tags, "00000000"])) + b"x" * 21
    picture(0, (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    with pytest.raises(ValueError, match="integer"):
        open_picture(tmp_path / "a.jpg")


@pytest.mark.parametrize("prompt", ["", " \t", None, "a\nb", "\ud800", "word " * 201])
def test_text_that_is_no_prompt_has_a_reason(prompt: Any) -> None:
    assert prompt_problem(prompt)
    assert prompt_problem("a fox’s paw holds a cup") is None


# --- tables ---------------------------------------------------------------------------------------


def table(*rows: tuple[str, str, str, float | None]) -> pl.DataFrame:
    names = ("pixels", "prompt", "metric", "value")
    return pl.DataFrame([dict(zip(names, row, strict=True)) for row in rows])


def test_pictures_of_one_prompt_are_averaged_before_the_mean() -> None:
    scores = table(
        ("1", "a", "m", 1.0), ("2", "a", "m", 3.0), ("3", "b", "m", 8.0), ("4", "c", "m", None)
    )  # fmt: skip
    (row,) = summarise_folder(scores, {"m": [0.0, 10.0]}).iter_rows(named=True)
    assert (row["mean"], row["n"], row["prompts"], row["missing"]) == (5.0, 3, 2, 1)
    assert row["percentile"] == 50.0 and row["ci_low"] <= 5.0 <= row["ci_high"]
    ranked = with_percentiles(scores, {"m": [0.0, 2.0]})["percentile"].to_list()
    assert ranked == [50.0, 100.0, 100.0, None]


def test_summary_does_not_see_the_order_of_rows() -> None:
    rows = [(str(n), f"p{n % 4}", "m", float(n) / 7) for n in range(12)]
    assert summarise_folder(table(*rows), {}).equals(summarise_folder(table(*reversed(rows)), {}))


def test_table_that_holds_no_scores_is_refused_as_reference(tmp_path: Path) -> None:
    pl.DataFrame({"a": [1]}).write_csv(tmp_path / "a.csv")
    with pytest.raises(HoiError, match="not a table of scores"):
        read_scores(tmp_path / "a.csv")
    scores = table(("1", "a", "m", 1.5), ("2", "a", "m", None))
    for name in ("b.csv", "b.parquet"):
        write_scores(scores, tmp_path / name)
        assert read_scores(tmp_path / name) == {"m": [1.5]}
