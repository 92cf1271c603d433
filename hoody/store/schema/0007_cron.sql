-- What is run by the clock. An entry is its container's server's, or that of server_id.
CREATE TABLE cron_entries (
    id                     text PRIMARY KEY,
    type                   text NOT NULL,
    user_name              text NOT NULL,
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
CREATE INDEX cron_entries_due ON cron_entries (next_fire_at) WHERE next_fire_at IS NOT NULL;
CREATE INDEX cron_entries_ending ON cron_entries (expires_at)
    WHERE expires_at IS NOT NULL AND NOT expired;
CREATE INDEX cron_entries_user ON cron_entries (user_name, created_at, id);
CREATE INDEX cron_entries_container ON cron_entries (container_id);

-- Each as it was; they stay when the entry goes.
CREATE TABLE cron_entry_versions (
    entry_id text NOT NULL,
    version  integer NOT NULL,
    entry    jsonb NOT NULL,
    PRIMARY KEY (entry_id, version)
);

-- How a user's crontab looked when it was put: for one container, or for all ('').
CREATE TABLE cron_layouts (
    user_name    text NOT NULL,
    container_id text NOT NULL,
    layout       text NOT NULL,
    PRIMARY KEY (user_name, container_id)
);

-- They outlive their entry, until retention.
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
CREATE INDEX cron_runs_running ON cron_runs (entry_id) WHERE status = 'running';
CREATE INDEX cron_runs_retry ON cron_runs (retry_at) WHERE retry_at IS NOT NULL;
CREATE INDEX cron_runs_old ON cron_runs (scheduled_at);
