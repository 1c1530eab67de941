-- The judge: sets of rows that are never trained, what each job did to the loss on them, and jobs that are kept aside.
CREATE TABLE held_out (
    id         TEXT PRIMARY KEY,                       -- dataset:share
    dataset    TEXT NOT NULL,
    share      REAL NOT NULL,
    examples   INTEGER NOT NULL,                       -- rows evaluated at most; fixed with the set
    supervise  TEXT NOT NULL,
    file       TEXT NOT NULL,
    job        INTEGER NOT NULL REFERENCES jobs (id)   -- the first that held them out
);

CREATE TABLE judgements (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,     -- also the order in which the jobs ended
    job         INTEGER NOT NULL UNIQUE REFERENCES jobs (id),
    step        INTEGER NOT NULL,                      -- global step that was judged
    verdict     TEXT NOT NULL,
    reason      TEXT NOT NULL,
    is_current  INTEGER NOT NULL,                      -- 0: the model does not stand on it (kept aside, discarded)
    at          REAL NOT NULL
);

CREATE TABLE scores (
    judgement    INTEGER NOT NULL REFERENCES judgements (id) ON DELETE CASCADE,
    held_out     TEXT NOT NULL REFERENCES held_out (id),
    is_own       INTEGER NOT NULL,
    before       TEXT,                                 -- JSON: loss, accuracy, rows, ...; null where it was skipped
    after        TEXT,
    skipped      TEXT NOT NULL DEFAULT '',
    is_let_pass  INTEGER NOT NULL DEFAULT 0,           -- harm that the gate saw, and that was accepted
    PRIMARY KEY (judgement, held_out)
);

-- Jobs whose model was kept aside by the gate.
CREATE TABLE candidates (
    job         INTEGER PRIMARY KEY REFERENCES jobs (id),
    state       TEXT NOT NULL CHECK (state IN ('moving','kept','accepting','accepted','discarded')),
    start_step  INTEGER NOT NULL,                      -- where the model stands without it
    parent      TEXT NOT NULL,                         -- hash of that checkpoint's manifest; '' for the base model
    step        INTEGER NOT NULL,
    reason      TEXT NOT NULL,
    at          REAL NOT NULL
);
