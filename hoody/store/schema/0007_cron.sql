-- What is due is asked for often, and is little of what there is: those indexes are partial.
CREATE TABLE cron_entries (
    id                     text PRIMARY KEY,
    type                   text NOT NULL,
    "user"                 text NOT NULL,
    name                   text,
    comment                text,
    schedule               text NOT NULL,
    command                text NOT NULL,
    timezone               text NOT NULL,
    enabled                boolean NOT NULL,
    overlap                text NOT NULL,
    timeout_seconds        integer NOT NULL,
    retries                integer NOT NULL,
    start_deadline_seconds integer NOT NULL,
    environment_vars       jsonb NOT NULL,
    container_id           text REFERENCES containers ON DELETE CASCADE,
    run_on                 text NOT NULL,
    scopes                 text[] NOT NULL,
    expires_at             timestamptz,
    server_id              text NOT NULL,
    next_fire_at           timestamptz,
    expired                boolean NOT NULL,
    version                integer NOT NULL,
    changed_by             text NOT NULL,
    created_at             timestamptz NOT NULL,
    updated_at             timestamptz NOT NULL
);
CREATE INDEX cron_entries_next ON cron_entries (next_fire_at, id)
    WHERE enabled AND next_fire_at IS NOT NULL;
CREATE INDEX cron_entries_next_of_server ON cron_entries (server_id, next_fire_at)
    WHERE enabled AND next_fire_at IS NOT NULL AND container_id IS NULL;
CREATE INDEX cron_entries_expiry ON cron_entries (expires_at, id)
    WHERE NOT expired AND expires_at IS NOT NULL;
CREATE INDEX cron_entries_user ON cron_entries ("user", created_at, id);
CREATE INDEX cron_entries_container ON cron_entries (container_id, created_at, id)
    WHERE container_id IS NOT NULL;

-- They outlive their entry, and its container.
CREATE TABLE cron_entry_versions (LIKE cron_entries, PRIMARY KEY (id, version));

-- A user's crontab as it was put: of one container, or of none.
CREATE TABLE cron_layouts (
    "user"       text NOT NULL,
    container_id text REFERENCES containers ON DELETE CASCADE,
    layout       text NOT NULL
);
CREATE UNIQUE INDEX cron_layouts_key ON cron_layouts ("user", coalesce(container_id, ''));
CREATE INDEX cron_layouts_container ON cron_layouts (container_id)
    WHERE container_id IS NOT NULL;

-- They outlive their entry until they are too old. That one fire has one run, whoever comes to
-- it, is what the UNIQUE says; read backwards, it is also the order in which they are shown.
CREATE TABLE cron_runs (
    id             text PRIMARY KEY,
    entry_id       text NOT NULL,
    version        integer NOT NULL,
    status         text NOT NULL,
    scheduled_at   timestamptz NOT NULL,
    started_at     timestamptz,
    finished_at    timestamptz,
    start_delay_ms double precision,
    duration_ms    double precision,
    exit_code      integer,
    stdout         text NOT NULL,
    stderr         text NOT NULL,
    attempt        integer NOT NULL,
    server_id      text NOT NULL,
    token_id       text,
    retry_at       timestamptz,
    UNIQUE (entry_id, scheduled_at, attempt)
);
CREATE INDEX cron_runs_retry ON cron_runs (retry_at, id) WHERE retry_at IS NOT NULL;
CREATE INDEX cron_runs_running ON cron_runs (entry_id) WHERE status = 'running';
CREATE INDEX cron_runs_of_server ON cron_runs (server_id, scheduled_at)
    WHERE status = 'running';
CREATE INDEX cron_runs_old ON cron_runs (scheduled_at) WHERE status <> 'running';
