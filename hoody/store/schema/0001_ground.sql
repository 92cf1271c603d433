-- Times are the server's (it passes them in), never the database's now().
-- Ids are 24 lower-case hex digits, made by the server; alias_key is the alias without
-- its case, as the server sees it: lower() depends on the locale.

CREATE TABLE secrets (
    name  text PRIMARY KEY,
    value bytea NOT NULL
);

CREATE TABLE tokens (
    id         text PRIMARY KEY,
    alias      text NOT NULL,
    alias_key  text NOT NULL UNIQUE,
    scopes     text[] NOT NULL,
    containers text[],
    digest     bytea NOT NULL,
    root       boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL,
    expires_at timestamptz
);
CREATE UNIQUE INDEX tokens_one_root ON tokens (root) WHERE root;

CREATE TABLE projects (
    id                      text PRIMARY KEY,
    alias                   text NOT NULL,
    alias_key               text NOT NULL UNIQUE,
    color                   text,
    max_containers          integer,
    max_snapshots           integer,
    snapshot_retention_days integer,
    idle_timeout_seconds    integer NOT NULL,
    dense                   boolean NOT NULL,
    created_at              timestamptz NOT NULL,
    updated_at              timestamptz NOT NULL
);

CREATE TABLE events (
    seq           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ts            timestamptz NOT NULL,
    event_type    text NOT NULL,
    actor         text NOT NULL,
    resource_type text NOT NULL,
    resource_id   text NOT NULL,
    container_id  text,
    project_id    text,
    data          jsonb NOT NULL,
    duration_ms   double precision,
    request_id    text
);
CREATE INDEX events_ts ON events (ts);
CREATE INDEX events_type ON events (event_type, seq);
CREATE INDEX events_resource_type ON events (resource_type, seq);
CREATE INDEX events_container ON events (container_id, seq) WHERE container_id IS NOT NULL;
CREATE INDEX events_project ON events (project_id, seq) WHERE project_id IS NOT NULL;

-- What happened stays as it was told. Retention takes what is older than the
-- moment that its transaction names, and nothing else may take anything.
CREATE FUNCTION events_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE'
        AND OLD.ts < nullif(current_setting('hoody.expire_before', true), '')::timestamptz
    THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'events are only ever added' USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER events_stay BEFORE UPDATE OR DELETE ON events
    FOR EACH ROW EXECUTE FUNCTION events_stay();
CREATE TRIGGER events_stay_all BEFORE TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION events_stay();
