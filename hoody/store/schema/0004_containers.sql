-- An image is on one server: that whose disk it is on.
CREATE TABLE images (
    id         text PRIMARY KEY,
    server_id  text NOT NULL,
    name       text NOT NULL,
    source     text NOT NULL,
    status     text NOT NULL,
    error      text,
    config     jsonb NOT NULL,
    size       bigint NOT NULL,
    created_at timestamptz NOT NULL,
    UNIQUE (server_id, name)
);

CREATE TABLE containers (
    id                   text PRIMARY KEY,
    project_id           text NOT NULL REFERENCES projects,
    server_id            text NOT NULL,
    name                 text NOT NULL,
    alias                text,
    color                text,
    comment              text,
    container_image      text NOT NULL,
    image_id             text NOT NULL REFERENCES images,
    image_config         jsonb NOT NULL,
    command              jsonb,
    port                 integer NOT NULL,
    exposed_ports        jsonb NOT NULL,
    environment_vars     jsonb NOT NULL,
    volumes              jsonb NOT NULL,
    ssh_public_key       text,
    autostart            boolean NOT NULL,
    idle_timeout_seconds integer,
    access               text NOT NULL,
    egress               text NOT NULL,
    memory_limit         bigint,
    disk_limit           bigint,
    cpu_limit            double precision,
    status               text NOT NULL,
    status_reason        text,
    pending              text,
    idle_since           timestamptz,
    last_activity_at     timestamptz,
    wake_count           integer NOT NULL,
    last_wake_ms         double precision,
    source_container_id  text,
    number               integer NOT NULL,
    incarnation          jsonb,
    created_at           timestamptz NOT NULL,
    updated_at           timestamptz NOT NULL,
    UNIQUE (server_id, number)
);
CREATE INDEX containers_project ON containers (project_id, created_at);
CREATE INDEX containers_image ON containers (image_id);

-- What is one label of a host name leads to one container, be it an id, a name or an alias.
CREATE TABLE container_labels (
    label        text PRIMARY KEY,
    container_id text NOT NULL REFERENCES containers ON DELETE CASCADE
);
CREATE INDEX container_labels_container ON container_labels (container_id);

CREATE TABLE container_transitions (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    container_id    text NOT NULL REFERENCES containers ON DELETE CASCADE,
    from_status     text NOT NULL,
    to_status       text NOT NULL,
    transition_time timestamptz NOT NULL,
    duration_ms     double precision NOT NULL,
    triggered_by    text NOT NULL,
    metadata        jsonb NOT NULL
);
CREATE INDEX container_transitions_container ON container_transitions (container_id, id);
