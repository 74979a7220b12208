"""`hoi score --json`: the answer alone on stdout, progress and complaints on stderr."""

import json
from pathlib import Path

import pytest
import yaml

from hoi_assets.cli.exit_codes import ExitCode
from hoi_assets.cli.main import main
from hoi_assets.settings import PROFILES


def test_json_of_a_folder_without_a_usable_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOI_PROFILE", "tiny")
    content = yaml.safe_load((PROFILES / "tiny.yaml").read_text(encoding="utf-8"))
    profile = tmp_path / "own.yaml"
    no_reference = {**content, "evaluation": {"reference_pool": None}}
    profile.write_text(yaml.safe_dump(no_reference), encoding="utf-8")
    images, out = tmp_path / "images", tmp_path / "scores.csv"
    images.mkdir()
    (images / "a.png").write_text("no image", encoding="utf-8")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"file": "a.png", "prompt": "a hand"}\n', encoding="utf-8")
    arguments = ["--images", str(images), "--prompts", str(prompts), "--out", str(out)]
    ended = main(["score", *arguments, "--profile", str(profile), "--json"])
    assert ended == ExitCode.PROBLEM
    found = json.loads(capsys.readouterr().out)
    assert found == {
        "table": str(out),
        "record": str(tmp_path / "scores.record.json"),
        "summary": [],
        "failed": 1,
        "reference": "no reference set",
        "complaints": [],
    }
