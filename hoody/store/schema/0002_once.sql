-- What is written later, and perhaps tried twice, is written once.
ALTER TABLE events ADD COLUMN key text;
CREATE UNIQUE INDEX events_key ON events (key) WHERE key IS NOT NULL;

-- Whoever asked for a change is told after a while that it could not be made; then it must
-- not come true later. Both times are the database's own, so no other clock matters.
CREATE FUNCTION must_be_within(seconds double precision) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF extract(epoch FROM clock_timestamp() - transaction_timestamp()) > seconds THEN
        RAISE EXCEPTION 'too late' USING ERRCODE = 'query_canceled';
    END IF;
END
$$;
