"""What goes wrong with a bucket is named with the remedy, without secrets, and nothing is lost."""

import datetime
import http.client
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hoi_assets.errors import HoiError
from hoi_assets.store.bucket import Bucket
from hoi_assets.store.bucket_errors import Unreachable
from hoi_assets.store.versions import Store
from hoi_assets_tests.s3_server import BUCKET, SECRET, BucketHome
from hoi_assets_tests.store.conftest import publish


class CuttingProxy:
    """Passes requests on to a server; the next `cut` answers to GET lose their second half."""

    def __init__(self, target: str) -> None:
        self.cut = 0
        host, _, port = target.removeprefix("http://").partition(":")
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                connection = http.client.HTTPConnection(host, int(port))
                connection.request("GET", self.path, headers=dict(self.headers))
                answer = connection.getresponse()
                body = answer.read()
                self.send_response_only(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "content-length"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if proxy.cut and answer.status == 200:
                    proxy.cut -= 1
                    body, self.close_connection = body[: len(body) // 2], True
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "CuttingProxy":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3://ab",
        "s3://Bucket_name/x",
        "s3:/bucket/x",
        "gs://bucket/x",
        "s3://bucket//x",
        "s3://bucket/../x",
        "s3://bucket/a*b",
        "s3://bucket/a\nb",
    ],
)
def test_url_that_names_no_bucket_is_refused(url: str) -> None:
    with pytest.raises(HoiError, match="is not a URL of a bucket") as told:
        Store(url)
    assert "s3://BUCKET/PREFIX" in told.value.remedy


def test_wrong_bucket_key_and_rights_are_named(
    bucket_home: BucketHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(bucket_home.store(), rows={"x": [1]})
    told = []

    def refused(url: str, name: str, **environment: str) -> HoiError:
        for key, value in {**bucket_home.server.environment(), **environment}.items():
            monkeypatch.setenv(key, value)
        with pytest.raises(HoiError, match=name) as found:
            publish(Store(url), rows={"x": [2]})
        told.append(str(found.value))
        return found.value

    wrong = refused("s3://no-such-bucket/x", "there is no such bucket")
    assert "make the bucket" in wrong.remedy
    refused(bucket_home.url, "does not accept the credentials", AWS_ACCESS_KEY_ID="nobody")
    refused(bucket_home.url, "not accept the credentials", AWS_SECRET_ACCESS_KEY="Wr0ngSecret")
    refused(bucket_home.url, "have no right to", AWS_ACCESS_KEY_ID="stranger")
    assert (
        "s3:PutObject"
        in refused(
            bucket_home.url, "cannot write .*have no right", AWS_ACCESS_KEY_ID="reader"
        ).remedy
    )
    refused(bucket_home.url, "no credentials", AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    assert not any(secret in text for text in told for secret in (SECRET, "Wr0ngSecret"))


def test_who_may_only_read_can_read(
    bucket_home: BucketHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(bucket_home.store(), rows={"x": [1]})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader")
    store = bucket_home.store("b")
    assert store.require("detailed_prompts", "hook").table("rows")["x"].to_list() == [1]


def test_clock_that_is_off_is_named(
    bucket_home: BucketHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    import botocore.auth

    real = botocore.auth.get_current_datetime

    def late(*given: object, **named: object) -> datetime.datetime:
        return real(*given, **named) + datetime.timedelta(hours=2)

    monkeypatch.setattr(botocore.auth, "get_current_datetime", late)
    with pytest.raises(HoiError, match="clock differs") as told:
        bucket_home.store()
    assert "NTP" in told.value.remedy


def test_server_that_is_away_is_named(
    bucket_home: BucketHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(Unreachable, match="does not answer") as told:
        bucket_home.store()
    assert "AWS_ENDPOINT_URL_S3" in told.value.remedy


def test_server_that_hangs_for_a_while_is_waited_for(bucket_home: BucketHome) -> None:
    store = bucket_home.store()
    server = bucket_home.server
    server.stop_answering()
    timer = threading.Timer(2.0, server.answer_again)
    timer.start()
    start = time.monotonic()
    try:
        publish(store, rows={"x": [1]})
    finally:
        timer.join()
    assert time.monotonic() - start > 1.5
    assert store.require("detailed_prompts", "hook").table("rows")["x"].to_list() == [1]


def test_large_files_go_up_in_parts_and_come_back_whole(bucket_home: BucketHome) -> None:
    data = bytes(range(256)) * (4 * 17 * 1024)  # 17 MiB: more than two parts
    here = bucket_home.store("a")
    with here.stage("verifier") as staging:
        staging.write_bytes("weights.safetensors", data)
        here.publish(staging, {}, None)
    there = bucket_home.store("b").require("verifier")
    assert there.file("weights.safetensors").read_bytes() == data
    assert bucket_home.server.client().list_multipart_uploads(Bucket=BUCKET).get("Uploads") is None


def test_odd_names_and_an_empty_prefix(bucket_home: BucketHome) -> None:
    for name in ("s3://hoi-tests", f"s3://{BUCKET}/Ünï cödé/it's #1 + 100=&;@,!"):
        bucket = Bucket(name)
        for key in ("a b/ü.json", "plus+&=#?.txt", "it's.md", "sub/'quoted' (1).parquet"):
            bucket.put(f"odd/{key}", key.encode(), absent=True)
            found = bucket.get(f"odd/{key}")
            assert found is not None and found.data == key.encode()
        keys = [one.key for one in bucket.list("odd/")]
        assert len(keys) == 4 and "odd/a b/ü.json" in keys
        bucket.delete(keys)
        assert not list(bucket.list("odd/"))


def test_answer_that_breaks_off_is_asked_for_again(
    bucket_home: BucketHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(bucket_home.store("a"), rows={"x": list(range(5000))})
    with CuttingProxy(bucket_home.server.url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        found = bucket_home.store("b").require("detailed_prompts", "hook")
        proxy.cut = 2
        assert found.table("rows").height == 5000
        assert proxy.cut == 0
