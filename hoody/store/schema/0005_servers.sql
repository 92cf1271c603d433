-- What the servers of this database are called, as each says at its start.
CREATE TABLE servers (
    id   text PRIMARY KEY,
    name text NOT NULL
);
