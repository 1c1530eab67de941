-- The truth of the work: jobs, attempts, intents, history. Times are unix seconds (UTC).
CREATE TABLE jobs (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,   -- also the order of arrival
    claim         TEXT UNIQUE,                         -- of the file it came from: the same claim never becomes two jobs
    file          TEXT NOT NULL,
    sha256        TEXT NOT NULL,
    dataset       TEXT,
    state         TEXT NOT NULL CHECK (state IN ('queued','running','succeeded','failed','cancelled','skipped','rejected')),
    priority      TEXT NOT NULL CHECK (priority IN ('high','normal','low')),
    examples      INTEGER NOT NULL DEFAULT 0,
    steps         INTEGER,
    attempts      INTEGER NOT NULL DEFAULT 0,
    charged       INTEGER NOT NULL DEFAULT 0,
    forgiven      INTEGER NOT NULL DEFAULT 0,          -- launches before the last resubmit: they count no more
    overtaken     INTEGER NOT NULL DEFAULT 0,
    reason        TEXT NOT NULL DEFAULT '',
    submitted_at  REAL NOT NULL,
    finished_at   REAL,
    not_before    REAL NOT NULL DEFAULT 0,
    start_step    INTEGER,
    settings      TEXT,                                -- JSON, frozen at the first dispatch
    filed         INTEGER NOT NULL DEFAULT 0,
    accounting    TEXT                                 -- JSON: rows, tokens, duplicates, what intake and trainer counted
);
CREATE INDEX jobs_by_state ON jobs (state, priority, id);
CREATE INDEX jobs_by_sha256 ON jobs (sha256);
CREATE INDEX jobs_by_file ON jobs (file, id);
CREATE INDEX jobs_unfiled ON jobs (filed) WHERE filed = 0;

CREATE TABLE attempts (
    id          TEXT PRIMARY KEY,
    job         INTEGER NOT NULL REFERENCES jobs (id),
    number      INTEGER NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('starting','running','stopping','ended')),
    outcome     TEXT,
    kind        TEXT,
    handle      TEXT,
    reason      TEXT NOT NULL DEFAULT '',
    started_at  REAL NOT NULL,
    ended_at    REAL,
    exit_code   INTEGER,
    signal      INTEGER,
    first_step  INTEGER,
    last_step   INTEGER,
    settled     INTEGER NOT NULL DEFAULT 0,            -- its job has drawn the consequence
    UNIQUE (job, number),
    CHECK ((state = 'ended') = (outcome IS NOT NULL))
);
CREATE INDEX attempts_open ON attempts (state) WHERE state != 'ended';
CREATE INDEX attempts_unsettled ON attempts (id) WHERE settled = 0;

-- What the operator wants; survives restarts. One row an intent.
CREATE TABLE intents (
    name   TEXT PRIMARY KEY,                           -- paused, stopped, down, skip, cancel
    value  TEXT NOT NULL,                              -- JSON
    at     REAL NOT NULL
);

CREATE TABLE events (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    at       REAL NOT NULL,
    kind     TEXT NOT NULL,
    level    TEXT NOT NULL CHECK (level IN ('info','warning','error')),
    message  TEXT NOT NULL,
    data     TEXT NOT NULL DEFAULT '{}'
);
