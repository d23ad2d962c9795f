"""Weights are read from the Hugging Face hub by their address, from its cache where it is out of reach."""

import os
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from helpers.commands import assert_fails, small_run
from helpers.errors import user_error
from helpers.networks import random_network, write_network

from sn6.checkpoints.hub import download, parse_address
from sn6.checkpoints.initial_weights import read_initial_weights
from sn6.checkpoints.loading import find_weights
from sn6.checkpoints.run_files import EO_WEIGHTS, FINAL_WEIGHTS
from sn6.trained_model import load

COMMIT = "1234567890123456789012345678901234567890"
REFUSED = {  # owner of a repository → status and X-Error-Code, as the hub answers
    "missing": (401, "RepoNotFound"),  # so it answers for a private one too, without a token
    "gated": (403, "GatedRepo"),
    "old": (404, "RevisionNotFound"),
    "empty": (404, "EntryNotFound"),
}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def cached_network(cache, revision="main", file="weights.safetensors"):
    """Write a network into the cache as the hub does: `refs/main` contains a commit, whose folder contains the file."""
    repository = cache / "models--owner--name"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / revision).write_text(COMMIT)
    return write_network(repository / "snapshots" / COMMIT / file, random_network())


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("hf://owner/name", ("owner/name", "weights.safetensors", None)),
        ("hf://owner/name/", ("owner/name", "weights.safetensors", None)),
        ("hf://o.w-n_er/n.a-m_e/model.onnx", ("o.w-n_er/n.a-m_e", "model.onnx", None)),
        ("hf://owner/name/a/best.ckpt@v1", ("owner/name", "a/best.ckpt", "v1")),
        ("hf://owner/name@refs/pr/1", ("owner/name", "weights.safetensors", "refs/pr/1")),
    ],
)
def test_the_parts_of_an_address(address, parts):
    """A Path has one slash less, and the address in messages has both."""
    for path in (Path(address), Path(str(Path(address)))):
        found = parse_address(path, "checkpoint")
        assert (found.repository, found.file, found.revision) == parts
        assert parse_address(Path(str(found)), "checkpoint") == found
        assert str(found).startswith("hf://")


@pytest.mark.parametrize("address", ["hf://name", "hf://a/", "hf://a b/c", "hf://owner/name@", "hf://own--er/name"])
def test_malformed_addresses(address, no_network, cache):
    with user_error("invalid_value", key="checkpoint"):
        find_weights(Path(address), "checkpoint", FINAL_WEIGHTS)


@pytest.mark.parametrize("is_offline", [False, True])
def test_a_cached_file_is_found_without_the_network_by_every_reader(cache, no_network, monkeypatch, is_offline):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", is_offline)
    path = cached_network(cache)
    assert download(Path("hf://owner/name"), "checkpoint") == path
    for key, inside in (("model.weights", FINAL_WEIGHTS), ("callbacks.sar_handoff.weights", EO_WEIGHTS)):
        assert read_initial_weights("hf://owner/name", key, inside).file == path
    assert load("hf://owner/name").paths == (Path("hf://owner/name"),)
    cached_network(cache, revision="v1", file="a/other.safetensors")
    assert download(Path("hf://owner/name/a/other.safetensors@v1"), "checkpoint").name == "other.safetensors"
    with user_error("unavailable", key="checkpoint", value="hf://owner/name/weights.safetensors@v2"):
        download(Path("hf://owner/name@v2"), "checkpoint")


def test_commands_take_an_address(sn6_command, archive_root, cache, no_network, tmp_path):
    local = cached_network(cache)
    for name, checkpoint in (("a", "hf://owner/name"), ("b", local)):
        words = [f"checkpoint={checkpoint}", f"root={archive_root}", f"out={tmp_path}/{name}"]
        done = sn6_command("predict", *words)
        assert done.status == 0, done.err
    a, b = ((tmp_path / name / "proposals.csv").read_bytes() for name in ("a", "b"))
    assert a == b
    gone = sn6_command("predict", "checkpoint=hf://owner/gone", f"root={archive_root}", f"out={tmp_path}/c")
    assert_fails(gone, "unavailable", "checkpoint", "hf://owner/gone/weights.safetensors")
    assert not (tmp_path / "c").exists()


def test_a_run_starts_from_an_address(sn6_run, archive_root, cache, no_network):
    cached_network(cache)
    short = [line for line in small_run() if not line.startswith("model.width")]
    done = sn6_run(*short, f"data.root={archive_root}", "model.weights=hf://owner/name")
    assert done.status == 0, done.err
    again = sn6_run(*short, f"data.root={archive_root}", "model.weights=hf://owner/name")
    assert again.status == 0, again.err
    assert_fails(
        sn6_run(*short, f"data.root={archive_root}", "name=gone", "model.weights=hf://owner/gone@v1"),
        "unavailable",
        "model.weights",
        "hf://owner/gone/weights.safetensors@v1",
    )


# --- a hub on this machine


@contextmanager
def hub(content):
    """Serve `content` as the file of every repository, except of the owners that are refused."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self, body):
            status, code = REFUSED.get(self.path.split("/")[1], (200, None))
            self.send_response(status)
            if code is not None:
                self.send_header("X-Error-Code", code)
            else:
                self.send_header("ETag", '"0123456789abcdef"')
                self.send_header("X-Repo-Commit", COMMIT)
            sent = content if status == 200 else b""
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            if body:
                self.wfile.write(sent)

        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def local_hub(cache, monkeypatch):
    with hub(b"the file") as address:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        for name in [key for key in os.environ if key.lower().endswith("_proxy")]:
            monkeypatch.delenv(name)
        yield


def test_a_file_is_downloaded_into_the_cache(local_hub, cache):
    path = download(Path("hf://owner/name/model.onnx"), "checkpoint")
    assert path.read_bytes() == b"the file"
    assert path == cache / "models--owner--name/snapshots" / COMMIT / "model.onnx"


@pytest.mark.parametrize("owner", REFUSED)
def test_what_the_hub_refuses_is_one_line(local_hub, owner):
    with user_error("not_found", key="checkpoint", value=f"hf://{owner}/name/weights.safetensors@v1"):
        download(Path(f"hf://{owner}/name@v1"), "checkpoint")
