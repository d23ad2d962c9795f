"""Published weights from a bucket, an address or a file."""

import pytest
from helpers.errors import user_error
from helpers.served import Cut, Endless, files_below, serve

from sn6.acquire import transfer, weights
from sn6.download import download


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait between tries, and use no proxy."""
    monkeypatch.setattr(transfer.time, "sleep", lambda _: None)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


LISTING = "<ListBucketResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'>{}</ListBucketResult>"
ENTRY = "<Contents><Key>spacenet-model-weights/spacenet-6/baseline/{}</Key><Size>{}</Size></Contents>"
LISTED = "/?list-type=2&prefix=spacenet-model-weights%2Fspacenet-6%2Fbaseline%2F"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch):
    """Serve a bucket with two files of weights."""
    prefix = "/spacenet-model-weights/spacenet-6/baseline/"
    entries = [("", 0), ("sar.pth", 1000), ("optical/best.pth", 200_000)]
    files = {prefix + name: bytes(size) for name, size in entries[1:]}
    listing = LISTING.format("".join(ENTRY.format(*entry) for entry in entries))
    with serve(files | {LISTED: listing.encode()}) as server:
        monkeypatch.setattr(weights, "BUCKET", server.url)
        yield server


def test_the_weights_of_the_baseline_are_those_that_the_bucket_lists(tmp_path, bucket):
    bucket.faults = [None, None, Cut(100_000)]
    download("weights/baseline", tmp_path)
    expected = {"weights/baseline/sar.pth": bytes(1000), "weights/baseline/optical/best.pth": bytes(200_000)}
    assert files_below(tmp_path) == expected
    assert bucket.requested_ranges == [None, None, None, "bytes=100000-"]
    bucket.requests.clear()
    download("weights/baseline", tmp_path)
    assert bucket.requests == [(LISTED, None)]
    assert files_below(tmp_path) == expected


@pytest.mark.parametrize(
    ("listing", "kind"),
    [
        (LISTING.format(""), "not_found"),
        ("not XML", "unreadable"),
        (LISTING.format(ENTRY.format("sar.pth", "large")), "unreadable"),
        (LISTING.format(ENTRY.format("../evil", 1)), "invalid_value"),
        (LISTING.format(ENTRY.format("sar.pth", 999)), "wrong_data"),
        (LISTING.format(ENTRY.format("sar.pth", 1001)), "wrong_data"),
    ],
)
def test_a_listing_that_is_wrong(tmp_path, bucket, listing, kind):
    bucket.files[LISTED] = listing.encode()
    with user_error(kind):
        download("weights/baseline", tmp_path)
    assert files_below(tmp_path) == {}


def test_a_listing_without_an_end(tmp_path, bucket, monkeypatch):
    monkeypatch.setattr(weights, "MAX_LISTING", 100_000)
    bucket.faults = [Endless(chunked=True)]
    with user_error("wrong_data", key=bucket.url + LISTED):
        download("weights/baseline", tmp_path)


def test_weights_from_an_address_or_a_file(tmp_path, capsys):
    with serve({"/a%20b/TernausNet.pt": b"w" * 5000}) as server:
        source = server.url + "/a%20b/TernausNet.pt"
        for _ in range(2):
            download("weights/ternausnet", tmp_path, source=source)
            assert files_below(tmp_path) == {"weights/ternausnet/TernausNet.pt": b"w" * 5000}
        assert len(server.requests) == 1
        with user_error("invalid_value", key="source", value=f"{server.url}/"):
            download("weights/ternausnet", tmp_path, source=f"{server.url}/")
    path = tmp_path / "weights/ternausnet/TernausNet.pt"
    capsys.readouterr()
    download("weights/ternausnet", tmp_path / "other", source=str(path))
    assert f"model.weights={path}" in capsys.readouterr().out
    assert not (tmp_path / "other").exists()
