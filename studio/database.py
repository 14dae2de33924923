"""The one SQLite file of a data folder: opening it, and bringing it forward to the newest schema.

`user_version` counts the migrations that have been applied. Migrations are only ever appended: a released one is never
edited, so that every older file reaches the same schema by the same steps.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from studio.errors import BadFile, StorageFull

NAME = "studio.sqlite3"
BUSY_SECONDS = 10.0

# Each entry is one schema version: the statements that lead to it from the one before.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE adapters ("
        " path TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,"
        " hash TEXT NOT NULL, PRIMARY KEY (path))",
    ),
    (
        "CREATE TABLE jobs ("
        " number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, payload TEXT NOT NULL,"
        " state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, last INTEGER NOT NULL DEFAULT 0,"
        " created REAL NOT NULL)",
        "CREATE INDEX jobs_by_state ON jobs (state, number)",
        "CREATE TABLE events ("
        " job INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE, number INTEGER NOT NULL, kind TEXT NOT NULL,"
        " event TEXT NOT NULL, PRIMARY KEY (job, number)) WITHOUT ROWID",
    ),
)


def connect(path: Path) -> sqlite3.Connection:
    """Open (or create) the database in write-ahead mode and migrate it.

    The connection is in autocommit mode (write `BEGIN IMMEDIATE` for a transaction) and may be handed between threads;
    who shares one guards it with a lock.

    Raises:
        StorageFull: the folder or the file cannot be written.
        BadFile: the file is no database, or a newer version of the studio wrote it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.OperationalError) as error:
        raise StorageFull(f"The database “{path.name}” cannot be opened for writing: {error}.") from error
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        migrate(connection)
    except sqlite3.OperationalError as error:
        connection.close()
        raise StorageFull(f"The database “{path.name}” cannot be written: {error}.") from error
    except sqlite3.DatabaseError as error:
        connection.close()
        raise BadFile(f"“{path.name}” in the data folder is not a database of the studio: {error}.") from error
    except BadFile:
        connection.close()
        raise
    return connection


def migrate(connection: sqlite3.Connection, migrations: tuple[tuple[str, ...], ...] = MIGRATIONS) -> None:
    """Apply the migrations that are missing, all or none; several processes may call this at once.

    Raises:
        BadFile: the database is of a newer schema than this program knows.
    """
    if _version(connection) == len(migrations):
        return  # the common case takes no write lock
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection)
        if version > len(migrations):
            raise BadFile(
                f"The data folder has schema version {version}, but this studio knows versions up to "
                f"{len(migrations)}; use the newer studio or another data folder."
            )
        for statements in migrations[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
