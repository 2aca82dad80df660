"""The catalog's tables.

Rules of this file: no semicolon inside a comment (statements are split at them); a change of the tables is
a new version with a migration, never an edit.
"""

from __future__ import annotations

VERSION = 1

SCHEMA = """
CREATE TABLE workflow (
    id TEXT PRIMARY KEY,              -- UUID
    name TEXT NOT NULL,               -- unique among those not deleted is NOT promised: services repeat names
    description TEXT NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL,      -- ns since the epoch, as all times here
    deleted INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE run (
    id TEXT PRIMARY KEY,              -- exec- + 12 hex
    uuid TEXT NOT NULL UNIQUE,
    workflow_id TEXT NOT NULL REFERENCES workflow(id),
    status TEXT NOT NULL,             -- running | completed | failed
    started_at INTEGER NOT NULL,
    completed_at INTEGER,
    response TEXT                     -- JSON, the agent's structured result
);
CREATE INDEX run_of_workflow ON run(workflow_id, started_at);
CREATE TABLE artifact (
    id TEXT PRIMARY KEY,              -- art_ + 6 hex
    uuid TEXT NOT NULL UNIQUE,
    workflow_id TEXT NOT NULL REFERENCES workflow(id),
    run_id TEXT REFERENCES run(id),
    phase TEXT NOT NULL DEFAULT '',
    name TEXT NOT NULL,               -- place below workflow/run/phase, may hold /
    kind TEXT NOT NULL CHECK (kind IN ('file', 'tree')),
    role TEXT NOT NULL DEFAULT 'artifact' CHECK (role IN ('artifact', 'volume')),
    media_type TEXT NOT NULL DEFAULT '',
    metadata TEXT NOT NULL DEFAULT '{}',
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    current INTEGER NOT NULL DEFAULT 0,   -- seq of the version in the present, 0: none yet
    deleted INTEGER NOT NULL DEFAULT 0    -- out of the present, versions stay addressable by id
);
CREATE INDEX artifact_of_workflow ON artifact(workflow_id, deleted);
CREATE INDEX artifact_of_run ON artifact(run_id);
CREATE TABLE version (
    artifact_id TEXT NOT NULL REFERENCES artifact(id),
    seq INTEGER NOT NULL,             -- 1 is the oldest
    id TEXT NOT NULL,                 -- 64 hex, from the content
    sha256 TEXT,                      -- of the file, NULL for a tree
    executable INTEGER NOT NULL DEFAULT 0,
    size INTEGER NOT NULL,            -- bytes of all files
    file_count INTEGER NOT NULL,
    message TEXT,
    created_by TEXT NOT NULL,         -- user | agent
    created_at INTEGER NOT NULL,
    extras TEXT NOT NULL DEFAULT '',  -- short hash of what id leaves out: x bits, symlinks, empty directories
    PRIMARY KEY (artifact_id, seq)
);
CREATE TABLE tree_file (
    artifact_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    path TEXT NOT NULL,
    sha256 TEXT,                      -- NULL: a directory or a symlink
    size INTEGER NOT NULL,
    executable INTEGER NOT NULL,
    mtime INTEGER,
    target TEXT,                      -- of a symlink
    PRIMARY KEY (artifact_id, seq, path),
    FOREIGN KEY (artifact_id, seq) REFERENCES version(artifact_id, seq)
) WITHOUT ROWID;
CREATE TABLE upload (
    id TEXT PRIMARY KEY,              -- UUID
    filename TEXT NOT NULL,
    purpose TEXT NOT NULL,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    md5 TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    ready INTEGER NOT NULL DEFAULT 1
);
CREATE INDEX upload_md5 ON upload(md5);
"""
