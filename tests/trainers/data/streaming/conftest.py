"""A small Hub on this machine, for the real client, with shards in the schema of Pick-a-Pic."""

import hashlib
import io
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

COMMIT = "c0ffee" * 6 + "beef"
FILES = {"data/train-0.parquet": 10, "data/train-1.parquet": 6, "data-more/train-2.parquet": 8}
"""Rows of each file, in the order of folders on the disk: not that of the names as text."""
SMALL = "data-more/train-2.parquet"
"""A file that the Hub does not keep in LFS, so that it tells no sha256."""


class Hub(ThreadingHTTPServer):
    """The endpoints of the Hub for ``owner/pairs`` at branch ``main``: revision, tree, resolve.

    As on the real one a file is answered with a redirection to where its bytes lie.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.folder = folder
        self.asked: list[str] = []
        """The paths of all requests."""
        self.ranges: list[tuple[str, int, int]] = []
        """File, first byte and the one after the last of each request for bytes."""
        self.faults: list[str] = []
        """Requests with one of these in their path are refused, once for each."""
        self.down = False
        self.knows_ranges = True

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def tree(self) -> list[dict[str, Any]]:
        """The listing of the whole data set."""
        files = sorted(p for p in self.folder.rglob("*") if p.is_file())
        folders = sorted({path.parent for path in files} - {self.folder})
        listed = [
            {"type": "directory", "oid": "0" * 40, "size": 0, "path": self._name(path)}
            for path in folders
        ]
        return listed + [self._entry(path) for path in files]

    def _entry(self, path: Path) -> dict[str, Any]:
        data, name = path.read_bytes(), self._name(path)
        entry = {"type": "file", "oid": "1" * 40, "size": len(data), "path": name}
        if name == SMALL or path.suffix != ".parquet":
            return entry
        digest = hashlib.sha256(data).hexdigest()
        return entry | {"lfs": {"oid": digest, "size": len(data), "pointerSize": 130}}

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(path)
        fault = next((fault for fault in self.server.faults if fault in path), None)
        if fault:
            self.server.faults.remove(fault)
        if fault or self.server.down:
            self._answer(503, b"busy")
        elif found := re.fullmatch(r"/api/datasets/owner/pairs/(revision|tree)/(\w+)(/.*)?", path):
            self._metadata(*found.groups())
        elif path.startswith(file := f"/datasets/owner/pairs/resolve/{COMMIT}/"):
            self._answer(302, b"", {"Location": "/bytes/" + path.removeprefix(file)})
        elif path.startswith("/bytes/"):
            self._bytes(path.removeprefix("/bytes/"))
        else:
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _metadata(self, kind: str, revision: str, below: str | None) -> None:
        if revision not in ("main", COMMIT):
            self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif kind == "revision":
            self._answer(200, json.dumps({"id": "owner/pairs", "sha": COMMIT}).encode())
        else:
            prefix = f"{below[1:]}/" if below else ""
            listed = [entry for entry in self.server.tree() if entry["path"].startswith(prefix)]
            if listed:
                self._answer(200, json.dumps(listed).encode())
            else:
                self._answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})

    def _bytes(self, name: str) -> None:
        data = (self.server.folder / name).read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        first, last = map(int, asked.groups()) if asked else (0, len(data) - 1)
        self.server.ranges.append((name, first, last + 1))
        if asked and self.server.knows_ranges:
            where = {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
            self._answer(206, data[first : last + 1], where)
        else:
            self._answer(200, data)

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def jpeg(number: int) -> bytes:
    """Noise: some 8 kB, so that images are most of a file, as they are in Pick-a-Pic."""
    noise = np.random.default_rng(number).integers(256, size=(96, 96, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "JPEG", quality=85)
    return stream.getvalue()


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 rows in row groups of 4, with other files of a data set beside them; row 8 is a tie."""
    folder = tmp_path_factory.mktemp("shards")
    first = 0
    for name, count in FILES.items():
        rows = [
            {
                "are_different": True, "best_image_uid": "u", "caption": f"an owl {i}",
                "has_label": i != 3, "jpg_0": jpeg(2 * i), "jpg_1": jpeg(2 * i + 1),
                "label_0": 0.5 if i == 8 else float(i % 2),
                "label_1": 0.5 if i == 8 else float(1 - i % 2), "model_0": "m", "user_id": i,
            }
            for i in range(first, first + count)
        ]  # fmt: skip
        (folder / name).parent.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), folder / name, row_group_size=4)
        first += count
    (folder / "README.md").write_text("Pairs.\n")
    (folder / "data" / "test.json").write_text("[]")
    return folder


@pytest.fixture
def server(shards: Path) -> Iterator[Hub]:
    """The Hub, in a thread of its own; clients are not told of it."""
    hub = Hub(shards)
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield hub
    hub.shutdown()
    thread.join()
    hub.server_close()


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that would have been waited between attempts."""
    found: list[float] = []
    monkeypatch.setattr("time.sleep", found.append)
    return found


@pytest.fixture
def hub(server: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The Hub as the one that clients in this process ask."""
    from huggingface_hub import close_session, constants

    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, server.endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    close_session()  # Another is opened when it is needed, with this environment.
    return server
