-- How the last transfer of each path ended. A path may be longer than an index takes.
CREATE TABLE pipe_results (
    path_digest bytea PRIMARY KEY,
    path        text NOT NULL,
    delivered   bigint NOT NULL,
    total       bigint,
    receivers   integer NOT NULL,
    digest      text,
    error       text,
    started     timestamptz NOT NULL,
    ended       timestamptz NOT NULL
);
CREATE INDEX pipe_results_ended ON pipe_results (ended);
