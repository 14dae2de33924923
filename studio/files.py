"""Writing files so that a crash, a full disk or a second process never leaves half of one."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from studio.errors import StorageFull


def write(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Write a file whole or not at all; its folder is made.

    Raises:
        StorageFull: the disk is full or cannot be written; nothing is left behind.
        FileExistsError: with `replace=False`, the name is taken.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refused(path, error) from error
    try:
        _write_synced(part, data)
        _put(part, path, replace=replace)
        _sync_folder(path.parent)
    except FileExistsError:
        raise
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        part.unlink(missing_ok=True)


def _refused(path: Path, error: OSError) -> StorageFull:
    return StorageFull(f"“{path.name}” cannot be saved: {error.strerror or error}.")


def _put(part: Path, path: Path, *, replace: bool) -> None:
    if not replace:
        # A hard link would claim the name and fill it in one step, but not every file system has them.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    try:
        os.replace(part, path)
    except OSError:
        if not replace:
            path.unlink()  # the name that was just claimed
        raise


def _write_synced(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the new name itself survive a power cut; Windows does so on its own and cannot open folders."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
