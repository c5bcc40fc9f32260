"""Data sets of the Hub: downloaded as files, or streamed: read over the network, never stored.

A streamed file is opened through ``huggingface_hub.HfFileSystem`` at the commit that the revision
named when the source was opened. Each read is one request for a range of bytes, so that what is
fetched is the footer, the small columns, and the row groups that are asked for.
"""

import hashlib
import io
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import PurePosixPath
from types import ModuleType
from typing import Any, TypeVar

import pyarrow.parquet as pq

from trainers.data.sources.shards import Shard
from trainers.data.sources.splits import one_split
from trainers.errors import UserError

HUB = re.compile(r"([\w.-]+/[\w.-]+)@([\w.-]+)")
WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds between attempts, where the Hub's client makes only one; they grow as its own do."""
PASSING = (429, 500, 502, 503, 504)
"""Answers that another attempt may mend: too many requests, and faults of a server."""
T = TypeVar("T")


@dataclass(frozen=True)
class HubSet:
    """A data set of the Hub, or of a mirror: which of the two is up to ``HF_ENDPOINT``."""

    repository: str
    """``owner/name``."""
    revision: str
    """Branch, tag or commit."""

    @classmethod
    def parse(cls, path: str) -> "HubSet | None":
        """The data set that ``owner/name@revision`` names; None for any other path."""
        found = HUB.fullmatch(path)
        return cls(*found.groups()) if found else None

    def __str__(self) -> str:
        return f"{self.repository}@{self.revision}"


def download(data: HubSet, files: str, allowed: bool) -> str:
    """The folder of the Hub's cache that holds the files of a data set.

    Args:
        data: The data set.
        files: Pattern of the files in it.
        allowed: Whether the Hub may be asked for what is not there.

    Raises:
        UserError: If it is not there, or the Hub does not answer.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return snapshot_download(
            data.repository,
            repo_type="dataset",
            revision=data.revision,
            allow_patterns=[files, files.removeprefix("**/")],
            local_files_only=not allowed,
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise UserError(
            f"{data}: not in the Hub's cache, or the Hub did not answer: set 'download: true' to "
            f"fetch it, give a mirror as owner/name@revision, or a local folder ({error})"
        ) from error


def stream(data: HubSet, files: str) -> list[Shard]:
    """The files of a data set as they lie on the Hub, in the order they would have on the disk.

    Args:
        data: The data set.
        files: Pattern of the files in it.

    Raises:
        UserError: If downloads are forbidden, there are no such files, they are several splits, or
            the Hub does not answer.
    """
    from huggingface_hub import HfApi, HfFileSystem, is_offline_mode

    if is_offline_mode():
        raise UserError(
            f"{data}: streaming needs the network, which HF_HUB_OFFLINE or --offline forbids: "
            "leave that out, or use files on the disk"
        )
    system: Any = HfFileSystem(skip_instance_cache=True)

    def pin() -> str:
        commit = HfApi().dataset_info(data.repository, revision=data.revision).sha
        root = f"datasets/{data.repository}@{commit}"
        system.resolve_path(root)  # Asks whether it exists, and remembers.
        return root

    with _explained(str(data)):
        root = _patiently(pin)
        listed = _patiently(lambda: system.find(root, detail=True))
        # The pattern is looked up in what was listed: glob takes a fault for an absent file.
        found = [path for path in system.glob(f"{root}/{files}") if path in listed]
    if not found:
        raise UserError(
            f"no preference pairs at {data}: expected files {files}, got "
            f"{', '.join(PurePosixPath(path).name for path in list(listed)[:5]) or 'none'}"
        )
    paths = sorted(found, key=PurePosixPath)
    one_split([PurePosixPath(path).relative_to(root) for path in paths], str(data), "", "files")
    return [_StreamedShard(system, listed[path]) for path in paths]


@dataclass(frozen=True)
class _StreamedShard(Shard):
    """A file of the Hub."""

    system: Any
    listed: dict[str, Any]
    """What the Hub says of it: its path at a commit, its size, and its hash if it is large."""

    @property
    def name(self) -> str:
        """See the base class."""
        return PurePosixPath(self.listed["name"]).name

    def open(self, footer: Any = None) -> pq.ParquetFile:
        """See the base class. Columns that lie side by side are one request (``pre_buffer``)."""
        return pq.ParquetFile(self._ranges(), metadata=footer, pre_buffer=True)

    def sha256(self) -> str:
        """See the base class. The Hub tells it of files in LFS; another is small, and is read."""
        lfs = self.listed["lfs"]
        return lfs.sha256 if lfs else hashlib.sha256(self._ranges().read()).hexdigest()

    def _ranges(self) -> "_Ranges":
        path, size = self.listed["name"], self.listed["size"]
        return _Ranges(self.system.open(path, "rb", cache_type="none", size=size), str(self))

    def __str__(self) -> str:
        return str(self.listed["name"]).removeprefix("datasets/")


class _Ranges(io.RawIOBase):
    """A file of the Hub of which a read is one request, made again by the client if it fails."""

    def __init__(self, file: Any, name: str) -> None:
        self.file = file
        self.name = name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self.file.tell())

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return int(self.file.seek(offset, whence))

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes: as many as asked for, but for the end of the file.

        Raises:
            UserError: If the Hub does not answer, or with other than these bytes.
        """
        left = self.file.size - self.file.tell()
        wanted = left if size < 0 else min(size, left)
        with _explained(self.name):
            data = bytes(self.file.read(wanted))
        if len(data) != wanted:
            raise UserError(
                f"{self.name}: expected a range of {wanted} bytes, got {len(data)}: set 'download: "
                "true', or an HF_ENDPOINT that answers requests for ranges"
            )
        return data


def _patiently(ask: Callable[[], T]) -> T:
    """What ``ask`` returns; it is called again after a while where its fault may pass."""
    http = _http()
    for wait in WAITS:
        try:
            return ask()
        except http.HTTPError as error:
            if not _may_pass(error):
                raise
        time.sleep(wait)
    return ask()


def _may_pass(error: BaseException) -> bool:
    """Whether another attempt may have an answer: no connection, or one of ``PASSING``."""
    from huggingface_hub.errors import HfHubHTTPError

    http = _http()
    if isinstance(error, HfHubHTTPError | http.HTTPStatusError):
        return error.response.status_code in PASSING
    return isinstance(error, http.TransportError)


def _http() -> ModuleType:
    """What huggingface_hub asks with, for its errors: httpx2, and httpx before release 2.0."""
    from huggingface_hub.errors import HfHubHTTPError

    return import_module(HfHubHTTPError.__bases__[0].__module__)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn what the Hub's client raises into a UserError that says what to do about it."""
    try:
        yield
    except (_http().HTTPError, OSError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        if _may_pass(error):
            raise UserError(
                f"{name}: the Hub does not answer ({said}): run the same command again; what was "
                "encoded is kept"
            ) from error
        raise UserError(
            f"{name}: the Hub refuses ({said}): check the name, the revision, and that HF_TOKEN "
            "may read it"
        ) from error
