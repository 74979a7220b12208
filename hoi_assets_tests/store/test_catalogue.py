import multiprocessing
import threading
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from hoi_assets.errors import HoiError
from hoi_assets.store.catalogue import catalogue_path, query, rebuild
from hoi_assets.store.disk import DiskFull
from hoi_assets.store.versions import Store
from hoi_assets_tests.store.conftest import file_size_limit, publish


def test_partitions_stand_in_one_table_with_partition_and_version(store: Store) -> None:
    hook = publish(store, rows={"x": [1, 2]})
    tripod = publish(store, partition="tripod", rows={"x": [3]})
    found = query(store, "select partition, version, x from detailed_prompts order by x")
    assert found.rows() == [
        ("hook", hook.version, 1),
        ("hook", hook.version, 2),
        ("tripod", tripod.version, 3),
    ]


def test_columns_are_united_by_name_and_disagreeing_types_become_text(store: Store) -> None:
    publish(store, rows={"x": [1], "n": [1], "odd": [["a"]], "late": pl.Series([None])})
    publish(store, partition="tripod", rows={"n": [0.5], "odd": [7], "late": ["b"]})
    found = query(store, "from detailed_prompts order by partition")
    assert found.columns == ["partition", "version", "orphaned", "x", "n", "odd", "late"]
    assert found.drop("version", "orphaned").rows() == [
        ("hook", 1, 1.0, "[a]", None),
        ("tripod", None, 0.5, "7", "b"),
    ]


def test_only_versions_in_force_are_shown_and_unpartitioned_is_null(store: Store) -> None:
    publish(store, "verifier", None, rows={"x": [1]})
    publish(store, "verifier", None, rows={"x": [2]})
    assert query(store, "select partition, x from verifier").rows() == [(None, 2)]


def test_other_tables_bear_the_assets_name(store: Store) -> None:
    publish(store, "verifier", None, rows={"x": [1]}, log={"step": [1, 2]})
    publish(store, "hoi_scorecards", None, scores={"value": [0.5]})
    names = query(store, "show tables")["name"].to_list()
    assert names == [
        "hoi_scorecards_scores",
        "ledger",
        "publications",
        "verifier",
        "verifier_log",
        "verifier_rows",
    ]
    assert query(store, "from verifier_rows").equals(query(store, "from verifier"))
    assert query(store, "select count(*) as n from verifier_log")["n"].item() == 2


def test_own_partition_and_version_columns_win_over_the_tables(store: Store) -> None:
    published = publish(store, rows={"Version": ["mine"], "partition": ["mine"], "x": [1]})
    assert query(store, "from detailed_prompts").rows() == [("hook", published.version, None, 1)]


def test_catalogue_follows_what_is_published_and_recorded(store: Store) -> None:
    publish(store, rows={"x": [1]})
    assert query(store, "select x from detailed_prompts").rows() == [(1,)]
    publish(store, rows={"x": [2]})
    assert query(store, "select x from detailed_prompts").rows() == [(2,)]
    store.ledger.record(
        [{"stage": "s", "partition": None, "row_id": "a", "status": "failed", "reason": "why"}]
    )
    found = query(store, "select partition, row_id, reason from ledger")
    assert found.rows() == [(None, "a", "why")]


def test_catalogue_is_not_built_again_while_nothing_changed(store: Store) -> None:
    publish(store)
    query(store, "from detailed_prompts")
    before = catalogue_path(store).stat()
    query(store, "from detailed_prompts")
    after = catalogue_path(store).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_publications_list_every_version_and_which_is_in_force(store: Store) -> None:
    first = publish(store, rows={"x": [1]}, inputs={"seed": 1})
    second = publish(store, rows={"x": [2]}, parents={"taxonomy": "abc"})
    found = query(
        store, 'select version, "current", run_id, inputs, parents from publications order by all'
    )
    assert sorted(found.rows()) == sorted(
        [
            (first.version, False, "run", '{"seed":1}', "{}"),
            (second.version, True, "run", "{}", '{"taxonomy":"abc"}'),
        ]
    )


def test_empty_store_answers(store: Store) -> None:
    assert query(store, "select count(*) as n from ledger")["n"].item() == 0
    assert query(store, "from publications").height == 0


@pytest.mark.parametrize("damage", [None, b"no database at all", b""])
def test_deleted_or_damaged_catalogue_is_built_again(store: Store, damage: bytes | None) -> None:
    publish(store)
    query(store, "from detailed_prompts")
    catalogue_path(store).unlink()
    if damage is not None:
        catalogue_path(store).write_bytes(damage)
    assert query(store, "select x from detailed_prompts").rows() == [(1,)]


@pytest.mark.parametrize(
    "sql",
    [
        "insert into detailed_prompts (x) values (2)",
        "delete from ledger",
        "drop table detailed_prompts",
        "create table mine as select 1",
        "create temp table mine as select 1",
        "copy detailed_prompts to 'out.csv'",
        "explain analyze delete from ledger",
        "attach 'other.duckdb' as other",
        "set enable_external_access = true",
        "begin",
    ],
)
def test_statement_that_writes_is_refused(store: Store, sql: str, tmp_path: Path) -> None:
    publish(store)
    with pytest.raises(HoiError, match="the catalogue is read-only"):
        query(store, sql)
    assert query(store, "select x from detailed_prompts").rows() == [(1,)]


@pytest.mark.parametrize(
    "sql",
    [
        "from read_csv('{secret}')",
        "from read_text('{secret}')",
        "from '{secret}'",
        "from glob('{folder}/*')",
        "from read_parquet('https://example.com/x.parquet')",
    ],
)
def test_sql_reaches_no_file_and_no_network(store: Store, sql: str, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n", encoding="utf-8")
    with pytest.raises(HoiError, match="no files and no network"):
        query(store, sql.format(secret=tmp_path / "secret.csv", folder=tmp_path))


def test_sql_sees_no_python_variables(store: Store) -> None:
    with pytest.raises(HoiError, match="sql does not exist"):
        query(store, "from sql")


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("selec 1", "syntax error"),
        ("from nowhere", "nowhere does not exist"),
        ("select cast('x' as int)", "Could not convert string 'x'"),
        ("select 1; select 2", "2 statements given"),
        ("  -- nothing", "0 statements given"),
        ("select interval 1 day", "cast that column"),
    ],
)
def test_mistakes_in_sql_are_told_in_duckdbs_words(store: Store, sql: str, message: str) -> None:
    with pytest.raises(HoiError, match=message):
        query(store, sql)


@pytest.mark.parametrize("sql", ["describe t", "summarize t", "pivot t on x using count(*)"])
def test_helpers_of_duckdb_work(store: Store, sql: str) -> None:
    publish(store, "t", None)
    assert query(store, sql).height > 0


def test_two_tables_of_one_name_are_named(store: Store) -> None:
    publish(store, "verifier", None, rows={"x": [1]}, Log={"x": [1]})
    publish(store, "verifier_log", None)
    with pytest.raises(HoiError, match="would both be called 'verifier_log'"):
        rebuild(store)


def test_full_disk_keeps_the_former_catalogue(store: Store) -> None:
    publish(store)
    query(store, "from detailed_prompts")
    publish(store, rows={"x": list(range(200_000))})
    before = catalogue_path(store).read_bytes()
    with file_size_limit(20_000), pytest.raises(DiskFull):
        rebuild(store)
    assert catalogue_path(store).read_bytes() == before
    assert not list(store.staging.iterdir())
    assert query(store, "select count(*) as n from detailed_prompts")["n"].item() == 200_000


def test_disk_that_is_full_at_the_last_write_puts_no_half_catalogue_in_place(store: Store) -> None:
    publish(store, rows={"x": [str(number) for number in range(30_000)]})
    ended = set()
    # From less than the log of the first table to more than all of it.
    for limit in range(300_000, 2_400_000, 300_000):
        publish(store, "verifier", None, rows={"x": [limit]})
        with file_size_limit(limit):
            try:
                found = query(
                    store, "select (select x from verifier), count(*) from detailed_prompts"
                )
                assert found.row(0) == (limit, 30_000)
                ended.add("answered")
            except DiskFull:
                ended.add("full")
    assert ended == {"answered", "full"}


def test_catalogue_that_is_deleted_again_and_again_answers_all_the_same(store: Store) -> None:
    publish(store, rows={"x": [1, 2]})
    stop = threading.Event()

    def delete() -> None:
        while not stop.wait(0.001):
            catalogue_path(store).unlink(missing_ok=True)

    thread = threading.Thread(target=delete)
    thread.start()
    try:
        for _ in range(10):
            assert query(store, "select sum(x) as n from detailed_prompts")["n"].item() == 3
    finally:
        stop.set()
        thread.join()


def test_answers_are_fresh_while_others_read_in_the_same_process(store: Store) -> None:
    publish(store, rows={"x": [0]})
    done, errors = threading.Event(), []

    def read() -> None:
        while not done.is_set():
            try:
                query(store, "from detailed_prompts")
            except Exception as error:
                errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(1, 6):
            publish(store, rows={"x": [number]})
            assert query(store, "select x from detailed_prompts").rows() == [(number,)]
    finally:
        done.set()
        reader.join(30)
    assert not errors


def test_answers_are_fresh_though_an_older_catalogue_is_held_open(store: Store) -> None:
    publish(store, rows={"x": [0]})
    with duckdb.connect(str(rebuild(store)), read_only=True) as held:
        held.execute("from detailed_prompts")
        publish(store, rows={"x": [1]})
        assert query(store, "select x from detailed_prompts").rows() == [(1,)]


def _ask(home: Path, results: Any) -> None:
    results.put(query(Store(home), "select count(*) as n from detailed_prompts")["n"].item())


def test_processes_that_ask_at_once_all_get_the_answer(store: Store) -> None:
    publish(store, rows={"x": [1, 2, 3]})
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    processes = [spawn.Process(target=_ask, args=(store.home, results)) for _ in range(2)]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == [3, 3]
    for process in processes:
        process.join(60)
    assert not list(store.staging.iterdir())
