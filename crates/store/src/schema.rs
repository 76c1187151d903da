//! The tables, the same in SQLite and PostgreSQL.

/// The newest format this code reads and writes, and the one it makes.
pub(crate) const FORMAT: i64 = 2;

/// The tables of this format, in PostgreSQL's words. Versions count from 1 within a service; times are microseconds
/// since 1970; `signs` counts the signs of life that the holder of the newest token has given.
const TABLES: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value BIGINT NOT NULL);
    CREATE TABLE sites (
        site TEXT PRIMARY KEY, token BIGINT NOT NULL, home TEXT NOT NULL, holder TEXT NOT NULL, signs BIGINT NOT NULL
    );
    CREATE TABLE events (
        site TEXT NOT NULL, service TEXT NOT NULL, version BIGINT NOT NULL CHECK (version > 0), at BIGINT NOT NULL,
        event TEXT NOT NULL, PRIMARY KEY (site, service, version)
    );
    CREATE TABLE snapshots (
        site TEXT NOT NULL, service TEXT NOT NULL, version BIGINT NOT NULL, state TEXT NOT NULL,
        PRIMARY KEY (site, service, version)
    );
    CREATE TABLE ticks (
        site TEXT NOT NULL, service TEXT NOT NULL, rollout BIGINT NOT NULL, sequence BIGINT NOT NULL,
        at BIGINT NOT NULL, body BYTEA NOT NULL, PRIMARY KEY (site, service, rollout, sequence)
    );
    INSERT INTO meta VALUES ('format', 2);
";

/// The table of notes. It came later: it is added where it is missing, and whoever does not know it does without it.
const NOTES: &str = "
    CREATE TABLE IF NOT EXISTS notes (
        site TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, at BIGINT NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (site, kind, name)
    );
";

/// Takes the tables of format 1, which knew SQLite and one site only, out of the way.
const SET_ASIDE: &str = "
    DROP TABLE meta;
    ALTER TABLE events RENAME TO events_1;
    ALTER TABLE snapshots RENAME TO snapshots_1;
    ALTER TABLE tokens RENAME TO tokens_1;
";

/// Brings what was in the tables of format 1 over.
const TAKE_OVER: &str = "
    INSERT INTO sites SELECT 'local', token, '', '', 0 FROM tokens_1;
    INSERT INTO events SELECT 'local', service, version, at, event FROM events_1;
    INSERT INTO snapshots SELECT 'local', service, version, state FROM snapshots_1;
    DROP TABLE tokens_1;
    DROP TABLE events_1;
    DROP TABLE snapshots_1;
";

/// What makes the tables in PostgreSQL.
pub(crate) fn postgres() -> &'static str {
    TABLES
}

/// What adds the table of notes in PostgreSQL.
pub(crate) fn postgres_notes() -> &'static str {
    NOTES
}

/// What adds the table of notes in SQLite.
pub(crate) fn sqlite_notes() -> String {
    in_sqlite(NOTES)
}

/// What makes the tables in SQLite.
pub(crate) fn sqlite() -> String {
    in_sqlite(&[TABLES, NOTES].concat())
}

fn in_sqlite(tables: &str) -> String {
    tables.replace("BIGINT", "INTEGER").replace("BYTEA", "BLOB").replace("\n    );", "\n    ) STRICT;")
}

/// What makes the tables of a SQLite file out of those of format 1.
pub(crate) fn sqlite_from_1() -> String {
    [SET_ASIDE, &sqlite(), TAKE_OVER].concat()
}
