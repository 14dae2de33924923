"""The database opens from any older schema, by many processes at once, and refuses what it does not know."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from studio import database
from studio.errors import BadFile, StorageFull


def schema(connection: sqlite3.Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")]


def test_opens_in_wal_and_at_the_newest_schema(tmp_path: Path) -> None:
    connection = database.connect(tmp_path / "deep" / database.NAME)
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert connection.execute("PRAGMA user_version").fetchone()[0] == len(database.MIGRATIONS)
    connection.close()


@pytest.mark.parametrize("version", range(len(database.MIGRATIONS) + 1))
def test_every_older_schema_reaches_the_same(tmp_path: Path, version: int) -> None:
    fresh = database.connect(tmp_path / "fresh.sqlite3")
    old = sqlite3.connect(tmp_path / "old.sqlite3", isolation_level=None)
    database.migrate(old, database.MIGRATIONS[:version])
    old.close()
    moved = database.connect(tmp_path / "old.sqlite3")
    assert schema(moved) == schema(fresh)
    fresh.close()
    moved.close()


def test_a_failing_migration_changes_nothing() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    with pytest.raises(sqlite3.OperationalError):
        database.migrate(connection, (("CREATE TABLE a (x)",), ("CREATE TABLE b (x)", "NONSENSE")))
    assert schema(connection) == []
    assert connection.execute("PRAGMA user_version").fetchone()[0] == 0


def test_a_newer_schema_is_refused_by_number(tmp_path: Path) -> None:
    connection = database.connect(tmp_path / "a.sqlite3")
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    with pytest.raises(BadFile, match="999"):
        database.connect(tmp_path / "a.sqlite3")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.sqlite3").write_bytes(b"no database at all" * 100)
    with pytest.raises(BadFile, match="a.sqlite3"):
        database.connect(tmp_path / "a.sqlite3")


def test_a_folder_that_cannot_be_made_is_storage_full(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFull):
        database.connect(tmp_path / "file" / "a.sqlite3")


def test_many_processes_open_a_new_database_at_once(tmp_path: Path) -> None:
    code = f"from pathlib import Path; from studio import database; database.connect(Path({str(tmp_path / 'a')!r}))"
    children = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(3)]
    assert [(child.communicate()[1], child.returncode) for child in children] == [(b"", 0)] * 3
