"""Benchmark rows: what is read, what is refused and why; getting the official files."""

import hashlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hoi_assets.cli.exit_codes import ExitCode
from hoi_assets.cli.main import main
from hoi_assets.detailscribe.benchmark import (
    BUILT_IN,
    OFFICIAL_FILES,
    BenchmarkRow,
    OfficialFile,
    benchmark_digest,
    benchmark_folder,
    benchmark_frame,
    read_benchmark,
)
from hoi_assets.detailscribe.benchmark_download import (
    COMMIT,
    FILES_FOLDER,
    REPOSITORY,
    fetch_official_files,
)
from hoi_assets.errors import HoiError
from hoi_assets.grammar.benchmark import write_benchmark
from hoi_assets.grammar.plans import SCENARIOS
from hoi_assets.hashing import digest_file

GOOD = json.dumps({"topic": "stir-tea", "prompt": "A robot stirs tea with a wrench."}).encode()


def write(folder: Path, *lines: bytes, name: str = "functional.jsonl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"\n".join(lines) + b"\n")
    return folder


def row(topic: Any = "t", prompt: Any = "p", **more: Any) -> bytes:
    return json.dumps({"topic": topic, "prompt": prompt, **more}).encode()


def read(folder: Path) -> list[BenchmarkRow]:
    return read_benchmark(folder, ("functional",))


def test_rows_are_read_as_written_with_scenario_source_and_line(tmp_path: Path) -> None:
    odd = row("tic−tac/toe: 50%, “x”", " A cup.  Two cups ")
    table = benchmark_frame(read(write(tmp_path, GOOD, b"", odd)))
    assert table.columns == [
        "row_id", "scenario", "topic", "prompt", "source", "line", "status", "reason",
    ]  # fmt: skip
    assert table["line"].to_list() == [1, 3]
    assert table["topic"][1] == "tic−tac/toe: 50%, “x”"
    assert table["prompt"][1] == " A cup.  Two cups "
    assert set(table["scenario"]) == {"functional"} and set(table["source"]) == {"functional.jsonl"}
    assert set(table["status"]) == {"accepted"} and table["reason"].null_count() == 2


def test_table_has_the_same_columns_whatever_the_rows_hold() -> None:
    assert benchmark_frame([]).columns == benchmark_frame(read_built_in()).columns


def read_built_in() -> list[BenchmarkRow]:
    return read_benchmark(benchmark_folder(None))


def test_built_in_benchmark_is_whole() -> None:
    rows = read_built_in()
    assert len(rows) >= 120 and {each.scenario for each in rows} == set(SCENARIOS)
    assert {each.status for each in rows} == {"accepted"}
    assert len({each.row_id for each in rows}) == len(rows)


def test_ids_stay_when_lines_move_and_differ_for_equal_prompts(tmp_path: Path) -> None:
    before = read(write(tmp_path / "a", row("x", "one"), row("x", "two"), row("y", "one")))
    after = read(write(tmp_path / "b", row("x", "new"), row("x", "one"), row("z", "one")))
    assert len({each.row_id for each in before}) == 3
    assert [before[0].row_id, before[2].row_id] == [after[1].row_id, after[2].row_id]
    other = read_benchmark(write(tmp_path, row("x", "one"), name="compositional.jsonl"))
    accepted = [each.row_id for each in other if each.status == "accepted"]
    assert accepted and accepted[0] != before[0].row_id


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"topic": "t", "prompt": "a cu', "broken_line: "),
        (b"a cup", "broken_line: "),
        (b'{"topic": "t"}', "missing_key: prompt"),
        (b'{"prompt": "p"}', "missing_key: topic"),
        (row(mood="calm"), "extra_key: 'mood'"),
        (b'{"topic": "t", "prompt": "p", "prompt": "q"}', "extra_key: 'prompt'"),
        (b'["topic", "prompt"]', "no_object: "),
        (b'"topic prompt"', "no_object: "),
        (b"[" * 100_000, "broken_line: "),
        (b'{"topic": "t", "prompt": ' + b"1" * 6000 + b"}", "broken_line: "),
        (row(prompt=""), "empty: "),
        (row(prompt="  "), "empty: "),
        (row(prompt=None), "no_text: prompt is 'None'"),
        (row(prompt=["p"]), "no_text: prompt is a list or object of 1"),
        (
            b'{"topic": "t", "prompt": ' + b'{"a": ' * 900 + b"1" + b"}" * 901,
            "no_text: prompt is a",
        ),
        (row(topic=7), "no_text: topic"),
        (row(prompt="\u200b\u200b"), "empty: prompt says nothing"),
        (row(prompt="..."), "empty: prompt says nothing"),
        (row(prompt="a" * 100_000), "too_long: 100000 characters, at most 4000"),
        (row(prompt="word " * 10_000), "too_many_words: 10000, at most 200"),
        (row(prompt="a\x00cup"), "control_character: U+0000 at character 2 of prompt"),
        (row(prompt="a\ncup"), "control_character: U+000A"),
        (row(topic="\x1b[31m"), "control_character: U+001B at character 1 of topic"),
        (row(prompt="\ud800"), "control_character: U+D800"),
        ('{"topic": "t", "prompt": "café"}'.encode("latin-1"), "not_utf8: byte 0xe9 at place 30"),
    ],
)
def test_bad_line_is_a_failed_row_and_the_rest_goes_on(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    rows = read(write(tmp_path, GOOD, line, row("u", "a last cup")))
    assert [each.status for each in rows] == ["accepted", "failed", "accepted"]
    bad = rows[1]
    assert (bad.reason or "").startswith(reason), bad.reason
    assert (bad.line, bad.topic, bad.prompt) == (2, "", "")
    assert len(bad.reason or "") < 200 and (bad.reason or "").isprintable()
    assert len({each.row_id for each in rows}) == 3
    assert benchmark_frame(rows).height == 3


def test_byte_order_mark_and_windows_line_ends_are_let_pass(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "functional.jsonl").write_bytes(b"\xef\xbb\xbf" + GOOD + b"\r\n" + row() + b"\r\n")
    assert [each.status for each in read(tmp_path)] == ["accepted", "accepted"]


def test_missing_file_is_reported_and_the_others_are_used(tmp_path: Path) -> None:
    rows = read_benchmark(write(tmp_path, GOOD))
    assert [each.status for each in rows] == ["accepted", "failed", "failed"]
    assert rows[1].line is None and rows[1].reason == "missing_file: not in the folder"
    assert [each.source for each in rows[1:]] == [
        "compositional_200.jsonl",
        "multi_subject_200.jsonl",
    ]


def test_official_name_is_held_to_official_count_and_hash(tmp_path: Path) -> None:
    rows = read(write(tmp_path, GOOD, row(), name="functional_600.jsonl"))
    reasons = [each.reason for each in rows if each.status == "failed"]
    assert reasons[0] == "wrong_count: 2 rows, the official file has 600"
    assert (reasons[1] or "").startswith("wrong_hash: sha256 ")
    assert sum(each.status == "accepted" for each in rows) == 2


def test_folder_in_a_files_place_and_empty_file_are_reported(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    (tmp_path / "compositional.jsonl").write_bytes(b"\n\n")
    (tmp_path / "multi_subject_200.jsonl").mkdir()
    reasons = {each.scenario: each.reason for each in read_benchmark(tmp_path)}
    assert reasons["compositional"] == "empty_file: no lines"
    assert (reasons["multi_subject"] or "").startswith("unreadable_file: ")


def test_folder_without_any_file_is_refused_with_the_names(tmp_path: Path) -> None:
    with pytest.raises(HoiError, match=r"functional_600\.jsonl[\s\S]*hoi interacting fetch"):
        read_benchmark(tmp_path / "nowhere")


def test_most_takes_the_first_usable_rows_of_each_scenario(tmp_path: Path) -> None:
    write(tmp_path, b"broken", *(row("t", f"cup {n}") for n in range(5)))
    rows = read_benchmark(tmp_path, ("functional",), most=2)
    assert [each.prompt for each in rows] == ["", "cup 0", "cup 1"]


def test_digest_follows_the_files_bytes(tmp_path: Path) -> None:
    first = benchmark_digest(write(tmp_path, GOOD), "functional")
    assert first == digest_file(tmp_path / "functional.jsonl")
    assert benchmark_digest(write(tmp_path, row()), "functional") != first
    assert benchmark_digest(tmp_path, "compositional") is None


# --- fetch ----------------------------------------------------------------------------------------


@pytest.fixture
def serve_files(tmp_path: Path) -> Iterator[Callable[[dict[str, bytes]], str]]:
    """A web server that has files as the authors' repository has them; returns its base URL."""
    servers: list[tuple[http.server.ThreadingHTTPServer, threading.Thread]] = []
    root = tmp_path / "www"

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, directory=str(root), **kwargs)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    def start(files: dict[str, bytes]) -> str:
        place = root / REPOSITORY / COMMIT / FILES_FOLDER
        place.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (place / name).write_bytes(data)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


DATA = b"".join(row("t", f"cup number {n}") + b"\n" for n in range(3))


def three_files(sha256: str | None) -> list[OfficialFile]:
    return [
        OfficialFile(file.scenario, file.name, 3, sha256 if n == 0 else None)
        for n, file in enumerate(OFFICIAL_FILES)
    ]


def names() -> list[str]:
    return [file.name for file in OFFICIAL_FILES]


def test_fetched_files_are_those_of_the_repository(serve_files: Any, tmp_path: Path) -> None:
    url = serve_files(dict.fromkeys(names(), DATA))
    known = hashlib.sha256(DATA).hexdigest()
    got = fetch_official_files(tmp_path / "new" / "rows", base_url=url, files=three_files(known))
    assert [file.verified for file in got] == [True, False, False]
    assert {file.sha256 for file in got} == {known}
    assert sorted(p.name for p in (tmp_path / "new" / "rows").iterdir()) == sorted(names())
    assert (tmp_path / "new" / "rows" / names()[0]).read_bytes() == DATA


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (DATA + row() + b"\n", "wrong_count: 4 rows, the official file has 3"),
        (DATA.replace(b"cup number 1", b""), "line 2: empty"),
        (b"<html>not here</html>\n", "line 1: broken_line"),
    ],
)
def test_download_that_is_not_the_official_file_writes_nothing(
    serve_files: Any, tmp_path: Path, bad: bytes, message: str
) -> None:
    url = serve_files({**dict.fromkeys(names(), DATA), names()[2]: bad})
    with pytest.raises(HoiError, match=message) as caught:
        fetch_official_files(tmp_path / "rows", base_url=url, files=three_files(None))
    assert names()[2] in caught.value.what and not (tmp_path / "rows").exists()


def test_download_with_another_hash_writes_nothing(serve_files: Any, tmp_path: Path) -> None:
    url = serve_files(dict.fromkeys(names(), DATA))
    with pytest.raises(HoiError, match="wrong_hash"):
        fetch_official_files(tmp_path / "rows", base_url=url, files=three_files("0" * 64))
    assert not (tmp_path / "rows").exists()


def test_moved_repository_is_told_with_its_status(serve_files: Any, tmp_path: Path) -> None:
    with pytest.raises(HoiError, match=r"answered 404[\s\S]*name another commit"):
        fetch_official_files(tmp_path / "rows", base_url=serve_files({}))


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://no-such-host.invalid"])
def test_no_network_is_told_with_what_serves_instead(tmp_path: Path, url: str) -> None:
    with pytest.raises(HoiError, match="cannot fetch") as caught:
        fetch_official_files(tmp_path / "rows", base_url=url, timeout_s=5)
    assert "by hand" in caught.value.remedy and "built-in benchmark" in caught.value.remedy


def test_addresses_of_files_and_the_built_in_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HoiError, match="not a web address"):
        fetch_official_files(tmp_path, base_url="file:///etc")
    with pytest.raises(HoiError, match="built-in benchmark"):
        fetch_official_files(BUILT_IN)


# --- command line ---------------------------------------------------------------------------------


def test_check_counts_rows_and_names_bad_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_benchmark(tmp_path / "whole")
    assert main(["interacting", "check", str(tmp_path / "whole")]) == 0
    assert "44 functional, 44 compositional, 44 multi_subject" in capsys.readouterr().out
    assert main(["interacting", "check", str(write(tmp_path / "bad", GOOD, b"{"))]) == 1
    said = capsys.readouterr().out
    assert f"{tmp_path / 'bad' / 'functional.jsonl'}:2: broken_line" in said
    assert "1 functional, 0 compositional" in said


def test_a_folder_in_a_files_place_leaves_all_as_it_was(serve_files: Any, tmp_path: Path) -> None:
    url = serve_files(dict.fromkeys(names(), DATA))
    folder = tmp_path / "new"
    (folder / names()[1]).mkdir(parents=True)
    with pytest.raises(HoiError, match="is a folder, not a file"):
        fetch_official_files(folder, base_url=url, files=three_files(None))
    assert [path.name for path in folder.iterdir()] == [names()[1]]


@pytest.mark.parametrize("commit", ["main", "v1.0", "A" * 40, "é" * 40, "0" * 39, "0" * 40 + "/.."])
def test_only_a_commit_is_fetched(commit: str, tmp_path: Path) -> None:
    with pytest.raises(HoiError, match="is not a commit"):
        fetch_official_files(tmp_path, commit=commit)


def test_fetch_without_network_ends_as_a_mistake_with_a_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    assert main(["interacting", "fetch", str(tmp_path)]) == ExitCode.USER_ERROR
    assert "by hand" in capsys.readouterr().err


def test_file_too_large_to_be_prompts_is_not_read(tmp_path):
    with (tmp_path / "functional.jsonl").open("wb") as file:
        file.write(b'{"topic": "a", "prompt": "b"}\n')
        file.truncate(2 * 2**30)  # sparse
    (row,) = read_benchmark(tmp_path, ["functional"])
    assert row.reason is not None and row.reason.startswith("too_large: 2147483648 bytes")
    assert str(benchmark_digest(tmp_path, "functional")).startswith("too_large")
