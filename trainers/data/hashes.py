"""Hashes of large files, remembered until a file changes: a data set is too large to hash often."""

from pathlib import Path

from trainers.errors import UserError
from trainers.files import as_json, sha256_file, write_text
from trainers.home import home
from trainers.input.text import read_json
from trainers.locks import locked
from trainers.sealed import open_record, seal_record

LARGE = 1 << 26
"""Bytes from which on a hash is remembered: it takes a tenth of a second or more."""


def remembered_sha256(path: Path) -> str:
    """Hex sha256 of a file; of a large one, that of last time if size and time are unchanged."""
    stat = path.stat()
    if stat.st_size < LARGE:
        return sha256_file(path)
    memory = home() / "hashes" / "data.json"
    known = _read(memory)
    key, mark = str(path.resolve()), [stat.st_size, stat.st_mtime_ns]
    if key in known and known[key][0] == mark:
        return str(known[key][1])
    digest = sha256_file(path)
    with locked(memory.with_name(f".{memory.name}.lock")):
        known = {**_read(memory), key: [mark, digest]}  # Another process may have added to it.
        write_text(memory, as_json(seal_record(known)))
    return digest


def _read(memory: Path) -> dict[str, list[object]]:
    """What is remembered; nothing if the file is missing or damaged, as it can be made again."""
    try:
        return open_record(read_json(memory)) or {}
    except (UserError, AttributeError):
        return {}
