"""Files that somebody names: which may be opened, and which are refused."""

import stat
from collections.abc import Iterable
from pathlib import Path

from trainers.errors import UserError

POINTER = b"version https://git-lfs"
"""How a file begins that stands for one which Git LFS has not fetched."""
KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip


def regular(path: Path) -> Path:
    """The path, if a file is there that can be read to its end: no pipe and no device.

    Raises:
        UserError: If there is another thing or nothing.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise UserError(f"no file {path}: check the path") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected the path of a file, got {reason(error)}") from error
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "something else")
        raise UserError(f"{path}: expected a file, got {kind}: give the path of a regular file")
    return path


def there(path: Path) -> bool:
    """Whether anything is found under a path, whatever it is; False if it can be none."""
    try:
        return path.exists()
    except OSError:  # It is too long, for one.
        return False


def is_regular(path: Path) -> bool:
    """Whether :func:`regular` gives the path."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def read_bytes(path: Path) -> bytes:
    """A file's bytes.

    Raises:
        UserError: If it is not :func:`regular`, cannot be read, or only stands for a file that Git
            LFS has not fetched.
    """
    try:
        data = regular(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {reason(error)}") from error
    refuse_pointer(data, path)
    return data


def refuse_pointer(head: bytes, place: object) -> None:
    """Refuse what begins as a file of Git LFS does before it has been fetched.

    Raises:
        UserError: If so.
    """
    if head.startswith(POINTER):
        raise UserError(
            f"{place}: expected the file itself, got a pointer of Git LFS: run 'git lfs pull' "
            "where it was cloned, or download it"
        )


def reason(error: Exception) -> str:
    """What an operating system's error says, without the path."""
    return getattr(error, "strerror", None) or " ".join(str(error).split())


def inside(folder: Path, name: str) -> Path | None:
    """The path of a file of ``folder``, be it there or not; None if ``name`` leads out of it.

    Names are data: they must not lead anywhere else, be it by ``..``, as absolute paths or through
    symbolic links. A link may lead into the cache of the Hub, whose snapshots are links to blobs.
    """
    path = folder / name
    try:
        real, root = path.resolve(), folder.resolve()
    except (OSError, ValueError, RuntimeError):  # Loops of links, NUL, names that are too long.
        return None
    if real.is_relative_to(root) or any(real.is_relative_to(blobs) for blobs in _blobs(root)):
        return path
    return None


def refuse_leaving(folder: Path, paths: Iterable[Path]) -> None:
    """Refuse files found below a folder that are links to other places; see :func:`inside`.

    Raises:
        UserError: If one is.
    """
    for path in paths:
        if inside(folder, str(path.relative_to(folder))) is None:
            raise UserError(
                f"{path}: expected a file of {folder}, got a link that leads out of it: give the "
                "folder that it leads to, or copy the file"
            )


def _blobs(root: Path) -> list[Path]:
    """Where links of a folder may lead beside itself: the Hub's cache, blobs of its snapshot."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE).resolve()
    own = [up.parent / "blobs" for up in (root, *root.parents) if up.name == "snapshots"]
    return [*own, cache]
