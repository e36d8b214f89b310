"""The table of runs on disk: SQLite, one transaction per run, so that what was recorded survives whatever follows."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

from onnxprune.errors import RecordingError, ResultsError
from onnxprune.exploration.checking import about_of, figures_of, run_of_row, unpacked
from onnxprune.exploration.runs import About, Figures, Run

_WAL = 2
"""What bytes 18 and 19 of a database say where it is written through a log (https://sqlite.org/fileformat2.html)."""
_APPLICATION = 0x6F707266
"""Marks the file as ours (SQLite's application_id)."""
_VERSION = 1
_CORRUPT, _FULL, _NO_DATABASE = 11, 13, 26
"""Result codes of SQLite; Python names them since 3.11."""
_PROGRAMS = ("view", "trigger")
_PATIENCE = 30.0
"""Seconds to wait for another process that writes."""
_TYPES = {"int": "INTEGER", "float": "REAL"}
_COLUMNS = {
    column.name: _TYPES.get(str(column.type).partition(" ")[0], "TEXT")
    for column in sorted(fields(Run), key=lambda column: column.name != "key")
}
# Quoted, since some are words of SQL.
_QUOTED = [f'"{name}"' for name in _COLUMNS]
_NAMES = ", ".join(_QUOTED)
_SCHEMA = (
    "CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE runs ("
    + ", ".join(f"{name} {kind}" for name, kind in zip(_QUOTED, _COLUMNS.values(), strict=True))
    + ", PRIMARY KEY (key))",
    "CREATE TABLE plans (key TEXT PRIMARY KEY, plan BLOB NOT NULL)",
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {_VERSION}",
)
_LATER = ("depth", "mean_depth", "width", "paths")
"""Columns that tables of earlier versions lack."""
# A run that failed may be tried again; one that is done stays as it is.
_INSERT = (
    f"INSERT INTO runs ({_NAMES}) VALUES ({', '.join('?' for _ in _COLUMNS)}) ON CONFLICT (key) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _QUOTED[1:])
    + " WHERE runs.status = 'failed'"
)


class Store:
    """A table that is open for writing. Use it in one process and thread; close it, or use it in a ``with``."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def open(cls, path: Path, about: About) -> Store:
        """Open a table, or begin one.

        Raises:
            ResultsError: the file is no such table, is damaged, or holds runs of another model or other data.
            RecordingError: it cannot be written.
        """
        with _translated(path, writing=True):
            connection = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)
        store = cls(path, connection)
        try:
            with _translated(path, writing=True):
                if _is_empty(connection):
                    connection.execute("PRAGMA journal_mode = WAL")
                    store._begin(about)
                else:
                    _check(connection, path)
                    check_same(path, _about(connection, path), about)
                    _original(connection, path)
                    _runs(connection, path)
                    connection.execute("PRAGMA journal_mode = WAL")
                    store._complete()
        except BaseException:
            connection.close()
            raise
        return store

    def add(self, run: Run, plan: str | None = None) -> None:
        """Record a run and its plan (JSON); a run that is recorded as done already stays as it is.

        Raises:
            RecordingError: it could not be written; what was recorded before is safe.
        """
        values = asdict(run)
        with self._transaction() as connection:
            connection.execute(_INSERT, [values[name] for name in _COLUMNS])
            if plan is not None:
                packed = zlib.compress(plan.encode(), 9)
                connection.execute("INSERT OR IGNORE INTO plans VALUES (?, ?)", (run.key, packed))

    def statuses(self) -> dict[str, str]:
        """Key → status of all runs."""
        with _translated(self.path, writing=False):
            return dict(self._connection.execute("SELECT key, status FROM runs"))

    @property
    def about(self) -> About:
        """What the runs have in common."""
        with _translated(self.path, writing=False):
            return _about(self._connection, self.path)

    @property
    def original(self) -> Figures | None:
        """The figures of the model as it was, if they are recorded."""
        with _translated(self.path, writing=False):
            return _original(self._connection, self.path)

    def set_original(self, figures: Figures, engine: Mapping[str, Any] | None = None) -> None:
        """Record the figures of the model as it was, and how latencies are measured, if that was not known before.

        Raises:
            RecordingError: they could not be written.
        """
        rows = [("original", json.dumps(asdict(figures)))]
        if engine is not None:
            rows.append(("engine", json.dumps(dict(engine))))
        with self._transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", rows)

    def close(self) -> None:
        """Leave one file behind, which can be copied and be read where nothing can be written."""
        # Where another process has it open, or the disk is full, the log beside the file is as good.
        with suppress(sqlite3.Error):
            self._connection.execute("PRAGMA journal_mode = DELETE")
        self._connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, about: About) -> None:
        with self._transaction() as connection:
            if not _is_empty(connection):
                return  # Another process was faster.
            for statement in _SCHEMA:
                connection.execute(statement)
            rows = [(name, json.dumps(value)) for name, value in asdict(about).items()]
            connection.executemany("INSERT INTO about VALUES (?, ?)", rows)

    def _complete(self) -> None:
        """Give a table of an earlier version the columns that it lacks."""
        if set(_LATER) <= _present(self._connection):
            return
        with self._transaction() as connection:
            present = _present(connection)
            for name in _LATER:
                if name not in present:
                    connection.execute(f'ALTER TABLE runs ADD COLUMN "{name}" {_COLUMNS[name]}')

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with _translated(self.path, writing=True):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


class Reader:
    """A table that is open for reading."""

    def __init__(self, path: Path) -> None:
        """Open it. Raises ResultsError where the file is missing, damaged or no such table."""
        if not path.is_file():
            raise ResultsError(f"there are no results in {path}; write some with 'onnxprune explore'")
        self.path = path
        with _translated(path, writing=False):
            self._connection = sqlite3.connect(_for_reading(path), uri=True)
            try:
                if _is_empty(self._connection):
                    raise ResultsError(f"{path} is empty: no exploration has recorded anything in it")
                _check(self._connection, path)
            except BaseException:
                self._connection.close()
                raise

    def about(self) -> About:
        """What the runs have in common."""
        with _translated(self.path, writing=False):
            return _about(self._connection, self.path)

    def original(self) -> Figures | None:
        """The figures of the model as it was."""
        with _translated(self.path, writing=False):
            return _original(self._connection, self.path)

    def runs(self) -> tuple[Run, ...]:
        """All runs, in the order in which they were recorded. Raises ResultsError where one holds what it cannot."""
        with _translated(self.path, writing=False):
            return _runs(self._connection, self.path)

    def plans(self, keys: Iterable[str] | None = None) -> Iterator[tuple[str, str]]:
        """(key, plan as JSON) of these runs, or of all."""
        with _translated(self.path, writing=False):
            if keys is None:
                rows: Iterable[Any] = self._connection.execute("SELECT key, plan FROM plans")
            else:
                # The key that was asked for and not that of the row: an index may be damaged.
                query = "SELECT ?1, plan FROM plans WHERE key = ?1"
                rows = (row for key in keys for row in self._connection.execute(query, (key,)))
            for key, packed in rows:
                try:
                    yield str(key), unpacked(packed)
                except ValueError as error:
                    raise ResultsError(f"the plan of run {key} in {self.path} is damaged: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_same(path: Path, found: About, wanted: About) -> None:
    """Raise ResultsError where a table's runs cannot be compared with those that are to be added."""
    other = "choose another file for these results"
    if found.model_digest != wanted.model_digest:
        raise ResultsError(f"{path} holds runs of another model ({found.model}), not of {wanted.model}; {other}")
    if found.data_digest != wanted.data_digest:
        raise ResultsError(f"{path} holds runs on other data ({found.data}), not on {wanted.data}; {other}")
    if dict(found.input_shapes) != dict(wanted.input_shapes):
        raise ResultsError(f"{path} holds runs for other input shapes ({_shown(found)}); {other}")
    if found.score != wanted.score:
        raise ResultsError(f"{path} judges runs by {found.score}, and these are judged by {wanted.score}; {other}")
    if found.task != wanted.task:
        raise ResultsError(f"{path} compares answers by task {found.task}, and not by {wanted.task}; {other}")
    if found.engine and wanted.engine and dict(found.engine) != dict(wanted.engine):
        raise ResultsError(
            f"the latencies in {path} hold for {dict(found.engine)} and not {dict(wanted.engine)}; {other}"
        )


def _shown(about: About) -> str:
    shapes = (f"{name} {'×'.join(map(str, shape))}" for name, shape in about.input_shapes.items())
    return ", ".join(shapes) or "none given"


def _is_empty(connection: sqlite3.Connection) -> bool:
    return not connection.execute("SELECT 1 FROM sqlite_master").fetchall()


def _runs(connection: sqlite3.Connection, path: Path) -> tuple[Run, ...]:
    present = _present(connection)
    absent = {name: None for name in _LATER if name not in present}
    names = [name for name in _COLUMNS if name not in absent]
    quoted = ", ".join(f'"{name}"' for name in names)
    rows = connection.execute(f"SELECT rowid, {quoted} FROM runs ORDER BY rowid")
    return tuple(run_of_row(dict(zip(names, row, strict=True)) | absent, number, path) for number, *row in rows)


def _present(connection: sqlite3.Connection) -> set[str]:
    return {row[1] for row in connection.execute("PRAGMA table_info(runs)")}


def _check(connection: sqlite3.Connection, path: Path) -> None:
    if _pragma(connection, "application_id") != _APPLICATION:
        raise ResultsError(f"{path} is a database, but not one of 'onnxprune explore'")
    version = _pragma(connection, "user_version")
    if version != _VERSION:
        raise ResultsError(f"{path} has version {version}; this onnxprune reads version {_VERSION}")
    # Views and triggers are programs, which may never come to an end.
    strange = [name for kind, name in connection.execute("SELECT type, name FROM sqlite_master") if kind in _PROGRAMS]
    if strange:
        raise _damaged(path, f"there is a {strange[0]!r} in it, which is no table")
    problems = [row[0] for row in connection.execute("PRAGMA quick_check(1)")]
    if problems != ["ok"]:
        raise _damaged(path, problems[0].splitlines()[-1] if problems else "no reason given")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _about(connection: sqlite3.Connection, path: Path) -> About:
    try:
        return about_of(dict(connection.execute("SELECT name, value FROM about")))
    except (TypeError, ValueError) as error:
        raise _damaged(path, str(error)) from error


def _original(connection: sqlite3.Connection, path: Path) -> Figures | None:
    row = connection.execute("SELECT value FROM about WHERE name = 'original'").fetchone()
    try:
        return None if row is None else figures_of(row[0])
    except ValueError as error:
        raise _damaged(path, str(error)) from error


def _for_reading(path: Path) -> str:
    """The URI of a table that is only read, so that reading leaves no files behind.

    A table in WAL mode whose log does not exist is complete in its one file. SQLite would make a log for readers, too,
    and a reader may not take it away again.
    """
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    try:
        with path.open("rb") as file:
            header = file.read(20)
    except OSError:
        return uri  # SQLite says why.
    logged = _WAL in header[18:20]
    return f"{uri}&immutable=1" if logged and not Path(f"{path}-wal").exists() else uri


@contextmanager
def _translated(path: Path, *, writing: bool) -> Iterator[None]:
    """Errors of SQLite, in words."""
    try:
        yield
    except UnicodeDecodeError as error:
        # sqlite3 decodes what SQLite says of a damaged name, and lets this pass where the name is not UTF-8.
        raise _damaged(path, "a name in it is not text") from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (_CORRUPT, _NO_DATABASE) or _says_damaged(error):
            raise _damaged(path, str(error)) from error
        if writing:
            full = code == _FULL or "full" in str(error)
            todo = "free some space" if full else "see that the folder can be written"
            raise RecordingError(
                f"cannot write to {path}: {error}; what was recorded before is safe: {todo}, and give the same "
                "command again to go on"
            ) from error
        raise ResultsError(f"cannot read {path}: {error}") from error


def _says_damaged(error: sqlite3.Error) -> bool:
    return isinstance(error, sqlite3.DatabaseError) and any(
        words in str(error) for words in ("malformed", "not a database", "no such table", "no such column")
    )


def _damaged(path: Path, why: str) -> ResultsError:
    return ResultsError(
        f"{path} is damaged or no table of results ({why}); it was left as it is. Restore a copy, save what is "
        f"left with 'sqlite3 {path} .recover | sqlite3 NEW', or give another name"
    )
