-- Schema of the ledger. Safe to run again; its version is set by the program, which adds the
-- checksums (crc) of ledgers of version 1.
BEGIN IMMEDIATE;
-- Generated things by the hash of all that determines them; value is canonical JSON.
CREATE TABLE IF NOT EXISTS made (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    made_at TEXT NOT NULL,
    crc INTEGER,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;
-- The latest ending of every row; partition is '' where the stage has none.
CREATE TABLE IF NOT EXISTS rows (
    stage TEXT NOT NULL,
    partition TEXT NOT NULL,
    row_id TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('accepted', 'rejected', 'failed')),
    reason TEXT,
    version TEXT,
    attempts INTEGER NOT NULL,
    updated_at TEXT NOT NULL,
    crc INTEGER,
    PRIMARY KEY (stage, partition, row_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS rows_by_id ON rows (row_id);
CREATE TABLE IF NOT EXISTS counter (changes INTEGER NOT NULL);
INSERT INTO counter SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM counter);
COMMIT;
