-- Of each container; the files are on the server that has it.
CREATE TABLE snapshots (
    id           text PRIMARY KEY,
    container_id text NOT NULL REFERENCES containers ON DELETE CASCADE,
    name         text NOT NULL,
    alias        text,
    pinned       boolean NOT NULL,
    comment      text,
    created_at   timestamptz NOT NULL CHECK (created_at BETWEEN '1970-01-01Z' AND '3000-01-01Z'),
    created_by   text NOT NULL,
    expires_at   timestamptz,
    last_used_at timestamptz,
    consistency  text NOT NULL,
    size         bigint,
    digest       text,
    record       text,
    parent       text,
    duration_ms  double precision NOT NULL,
    pause_ms     double precision NOT NULL,
    is_undo      boolean NOT NULL,
    UNIQUE (container_id, name),
    UNIQUE (container_id, alias)
);
CREATE INDEX snapshots_expiry ON snapshots (expires_at) WHERE expires_at IS NOT NULL;
ALTER TABLE containers ADD COLUMN last_used_snapshot text;
