-- The schema, version 1. `baton.` stands for the configured schema wherever it appears.
--
-- Everything that changes more than one row is a function, called by one statement: one round trip, no lock is held while a
-- node pauses or dies, and it works through a pooler that hands out connections by the transaction. Inside a function each
-- statement sees what was committed before it, so what is read after a lock is taken is the newest.
--
-- Locks are taken in this order: account, one-time token, session, events. What does not keep to it does not wait.

-- Which migrations have been made.
CREATE TABLE baton.baton_schema (
    version     integer PRIMARY KEY,
    migrated_at timestamptz NOT NULL DEFAULT now()
);

-- One row. No time before `mark` is given any more. `ahead` is what the store's time is ahead of the server's clock, after
-- that was set back. Milliseconds.
CREATE TABLE baton.clock (
    one   boolean PRIMARY KEY DEFAULT true CHECK (one),
    mark  bigint NOT NULL DEFAULT 0,
    ahead bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10);
INSERT INTO baton.clock DEFAULT VALUES;

CREATE TABLE baton.known_keys (
    fingerprint text PRIMARY KEY
);

-- `uid_key` is the SHA-256 of the uid: an index has no room for a long one. The number of a deleted account is not given to
-- another one: a sequence never goes back.
CREATE TABLE baton.accounts (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    realm             text COLLATE "C" NOT NULL,
    provider          text COLLATE "C" NOT NULL,
    uid               text COLLATE "C" NOT NULL,
    uid_key           bytea NOT NULL,
    email             text COLLATE "C" NOT NULL,
    profile           text COLLATE "C" NOT NULL,
    password          text COLLATE "C" NOT NULL,
    permit_client     uuid,
    permit_until      bigint,
    confirmed_at      bigint,
    unconfirmed_email text COLLATE "C",
    created_at        bigint NOT NULL,
    updated_at        bigint NOT NULL,
    UNIQUE (realm, provider, uid_key)
);

-- `purge_at` is never after `expires_at`, and a rotation leaves it alone: an index on what a rotation changes would cost it
-- an entry in every index of the table. With the room that `fillfactor` leaves, a rotation touches one page (HOT).
CREATE TABLE baton.sessions (
    client        uuid PRIMARY KEY,
    account       bigint NOT NULL REFERENCES baton.accounts (id) ON DELETE CASCADE,
    generation    bigint NOT NULL,
    handed_out_at bigint,
    confirmed     bigint NOT NULL,
    created_at    bigint NOT NULL,
    expires_at    bigint NOT NULL,
    last_seen_at  bigint NOT NULL,
    purge_at      bigint NOT NULL,
    user_agent    text COLLATE "C",
    ip            text COLLATE "C"
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX sessions_by_account ON baton.sessions (account);
CREATE INDEX sessions_by_purge ON baton.sessions (purge_at);

-- One row if sessions are kept elsewhere, and have to end there too.
CREATE TABLE baton.remembers_ends (
    one boolean PRIMARY KEY DEFAULT true CHECK (one)
);

-- Sessions that have ended here and have to end elsewhere too.
CREATE TABLE baton.ended_sessions (
    client  uuid PRIMARY KEY,
    account bigint NOT NULL
);
CREATE INDEX ended_sessions_by_account ON baton.ended_sessions (account);

-- A trigger, because sessions end in many ways.
CREATE FUNCTION baton.remember_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM baton.remembers_ends) THEN
        INSERT INTO baton.ended_sessions (client, account) VALUES (OLD.client, OLD.account) ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER remember_end AFTER DELETE ON baton.sessions FOR EACH ROW EXECUTE FUNCTION baton.remember_end();

CREATE TABLE baton.one_time_tokens (
    id         uuid PRIMARY KEY,
    account    bigint NOT NULL REFERENCES baton.accounts (id) ON DELETE CASCADE,
    purpose    text COLLATE "C" NOT NULL,
    email      text COLLATE "C" NOT NULL,
    expires_at bigint NOT NULL
);
CREATE INDEX one_time_tokens_by_account ON baton.one_time_tokens (account);
CREATE INDEX one_time_tokens_by_expiry ON baton.one_time_tokens (expires_at);

-- `name` is a pseudonym.
CREATE TABLE baton.attempts (
    name         uuid PRIMARY KEY,
    count        bigint NOT NULL DEFAULT 0,
    locked_until bigint,
    expires_at   bigint NOT NULL DEFAULT 0
);
CREATE INDEX attempts_by_expiry ON baton.attempts (expires_at);

-- An event outlives its account, so it does not refer to it.
CREATE TABLE baton.audit_events (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         bigint NOT NULL,
    kind       text COLLATE "C" NOT NULL,
    realm      text COLLATE "C" NOT NULL,
    account    bigint,
    uid        text COLLATE "C",
    client     uuid,
    ip         text COLLATE "C",
    user_agent text COLLATE "C"
);
CREATE INDEX audit_events_by_time ON baton.audit_events (at);
CREATE INDEX audit_events_by_account ON baton.audit_events (account);

-- A row has either a mail, as JSON, or a URL with an event.
CREATE TABLE baton.outbox (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    mail       text COLLATE "C",
    url        text COLLATE "C",
    event      bigint REFERENCES baton.audit_events (id),
    attempt    bigint NOT NULL DEFAULT 0,
    created_at bigint NOT NULL,
    due_at     bigint NOT NULL,
    CHECK ((mail IS NULL) = (url IS NOT NULL AND event IS NOT NULL))
);
CREATE INDEX outbox_by_due ON baton.outbox (due_at, id);
CREATE INDEX outbox_by_event ON baton.outbox (event) WHERE event IS NOT NULL;

-- The server's clock, in milliseconds. The only place where it is read.
CREATE FUNCTION baton.baton_clock() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint
$$;

-- The store's time.
CREATE FUNCTION baton.baton_now() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN (SELECT greatest(baton.baton_clock() + c.ahead, c.mark) FROM baton.clock c);
END
$$;

-- Called by every node that is in use, twice a second, with the latest time that it has seen. While the clock is behind that
-- or the mark, time goes on from there at about two thirds of the clock's pace: standing still would hold every batch window
-- open, and full pace would never come back to the clock. While all is well it writes once in ten seconds: what is later
-- than the mark is known to the nodes, and each row keeps its own time from going back.
CREATE FUNCTION baton.tick(p_seen bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_clock bigint;
    v_now   bigint;
    v_row   baton.clock;
BEGIN
    SELECT * INTO v_row FROM baton.clock;
    v_clock := baton.baton_clock();
    IF v_row.ahead = 0 AND v_clock >= greatest(v_row.mark, p_seen) AND v_clock < v_row.mark + 10000 THEN
        RETURN;
    END IF;
    PERFORM set_config('synchronous_commit', 'off', true);
    SELECT * INTO v_row FROM baton.clock FOR UPDATE;
    v_clock := baton.baton_clock();
    v_now := greatest(v_clock + v_row.ahead, v_row.mark, p_seen);
    UPDATE baton.clock SET
        mark = v_now,
        ahead = greatest(0, v_now - v_clock - least(v_now - v_row.mark, 1000) / 2);
END
$$;

-- For what no crash may undo, where the server's default is not to wait for the disk.
CREATE FUNCTION baton.durably() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
END
$$;

-- `p_ms` may be beyond the end of time.
CREATE FUNCTION baton.plus(p_time bigint, p_ms bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_ms > 9223372036854775807 - p_time THEN 9223372036854775807 ELSE p_time + p_ms END
$$;

CREATE FUNCTION baton.uid_key(p_uid text) RETURNS bytea LANGUAGE sql STABLE AS $$
    SELECT sha256(convert_to(p_uid, 'UTF8'))
$$;

-- Means `Session::swapped`. `p_lifespan` is null without a hand-out. `o_made` is the time of the swap, or null; then
-- `o_row` is the record as it is.
CREATE FUNCTION baton.swap(
    p_client uuid, p_generation bigint, p_handed_out_at bigint, p_confirmed bigint,
    p_new_generation bigint, p_new_confirmed bigint, p_lifespan bigint, p_max_lifetime bigint,
    p_ip text, p_relaxed boolean,
    OUT o_made bigint, OUT o_row baton.sessions
) LANGUAGE plpgsql AS $$
DECLARE
    v_now bigint;
BEGIN
    IF p_relaxed THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    ELSE
        PERFORM baton.durably();
    END IF;
    SELECT greatest(baton.baton_clock() + c.ahead, c.mark) INTO v_now FROM baton.clock c;
    -- It may have waited for another swap, whose time is later than `v_now`.
    UPDATE baton.sessions s SET
        generation = p_new_generation,
        confirmed = greatest(s.confirmed, p_new_confirmed),
        last_seen_at = greatest(s.last_seen_at, v_now),
        ip = coalesce(p_ip, s.ip),
        handed_out_at = CASE WHEN p_lifespan IS NULL THEN s.handed_out_at ELSE greatest(s.last_seen_at, v_now) END,
        expires_at = CASE WHEN p_lifespan IS NULL THEN s.expires_at ELSE greatest(s.expires_at, least(
            baton.plus(greatest(s.last_seen_at, v_now), p_lifespan), baton.plus(s.created_at, p_max_lifetime))) END
    WHERE s.client = p_client AND s.generation = p_generation AND s.confirmed = p_confirmed
        AND s.handed_out_at IS NOT DISTINCT FROM p_handed_out_at
    RETURNING s.last_seen_at INTO o_made;
    IF NOT FOUND THEN
        SELECT * INTO o_row FROM baton.sessions s WHERE s.client = p_client;
    END IF;
END
$$;

-- Events are numbered and dated in the order in which they are committed, or a reader who has got to one of them would
-- miss another with a lower number: so they are added one transaction after the other.
CREATE FUNCTION baton.leave(p_trace json, p_account bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_now   bigint;
    v_id    bigint;
    v_event record;
BEGIN
    IF p_trace IS NULL THEN
        RETURN;
    END IF;
    IF json_array_length(p_trace->'events') > 0 THEN
        PERFORM pg_advisory_xact_lock(1111577678, 'baton.audit_events'::regclass::oid::integer);
        v_now := greatest(baton.baton_now(), (SELECT e.at FROM baton.audit_events e ORDER BY e.id DESC LIMIT 1));
        FOR v_event IN
            SELECT * FROM json_to_recordset(p_trace->'events') AS e (
                kind text, realm text, account bigint, uid text, client uuid, ip text, user_agent text)
        LOOP
            INSERT INTO baton.audit_events (at, kind, realm, account, uid, client, ip, user_agent)
            VALUES (v_now, v_event.kind, v_event.realm, coalesce(v_event.account, p_account), v_event.uid,
                v_event.client, v_event.ip, v_event.user_agent)
            RETURNING id INTO v_id;
            INSERT INTO baton.outbox (url, event, created_at, due_at)
            SELECT u.url, v_id, v_now, v_now
            FROM json_array_elements_text(p_trace->'webhooks') WITH ORDINALITY AS u (url, number) ORDER BY u.number;
        END LOOP;
    ELSE
        v_now := baton.baton_now();
    END IF;
    INSERT INTO baton.outbox (mail, created_at, due_at)
    SELECT m.mail, v_now, v_now
    FROM json_array_elements_text(p_trace->'mails') WITH ORDINALITY AS m (mail, number) ORDER BY m.number;
END
$$;

CREATE FUNCTION baton.record(p_trace json) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM baton.durably();
    PERFORM baton.leave(p_trace, NULL);
END
$$;

-- Means `Session::new`. The account has to be locked, or new. Ends the least recently used ones beyond the limit, never
-- this one.
CREATE FUNCTION baton.add_session(p_account bigint, p_session json, p_now bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_client  uuid := (p_session->>'client')::uuid;
    v_expires bigint;
BEGIN
    v_expires := least(baton.plus(p_now, (p_session->>'lifespan')::bigint),
        baton.plus(p_now, (p_session->>'max_lifetime')::bigint));
    INSERT INTO baton.sessions (client, account, generation, confirmed, created_at, expires_at, last_seen_at, purge_at,
        user_agent, ip)
    VALUES (v_client, p_account, 1, 0, p_now, v_expires, p_now, v_expires,
        p_session->>'user_agent', p_session->>'ip');
    DELETE FROM baton.sessions WHERE client IN (
        SELECT s.client FROM baton.sessions s WHERE s.account = p_account AND s.client <> v_client
        ORDER BY s.last_seen_at DESC, s.created_at DESC, s.client DESC
        OFFSET (p_session->>'others')::bigint);
END
$$;

-- `o_account` is null if the name is taken.
CREATE FUNCTION baton.create_account(
    p_account json, p_session json, p_trace json, OUT o_account bigint, OUT o_now bigint
) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM baton.durably();
    o_now := baton.baton_now();
    INSERT INTO baton.accounts (realm, provider, uid, uid_key, email, profile, password, created_at, updated_at)
    VALUES (p_account->>'realm', p_account->>'provider', p_account->>'uid', baton.uid_key(p_account->>'uid'),
        p_account->>'email', p_account->>'profile', p_account->>'password', o_now, o_now)
    ON CONFLICT (realm, provider, uid_key) DO NOTHING
    RETURNING id INTO o_account;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF p_session IS NOT NULL THEN
        PERFORM baton.add_session(o_account, p_session, o_now);
    END IF;
    PERFORM baton.leave(p_trace, o_account);
END
$$;

-- `o_now` is null if there is no such account with such a password.
CREATE FUNCTION baton.create_session(
    p_account bigint, p_session json, p_if_password text, p_trace json, OUT o_now bigint
) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM baton.durably();
    PERFORM 1 FROM baton.accounts a
    WHERE a.id = p_account AND (p_if_password IS NULL OR a.password = p_if_password)
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    o_now := baton.baton_now();
    PERFORM baton.add_session(p_account, p_session, o_now);
    PERFORM baton.leave(p_trace, p_account);
END
$$;

-- What `update_account` and `redeem` have in common. `o_outcome`: done, gone, overtaken or taken.
CREATE FUNCTION baton.change_account(
    p_account bigint, p_update json, OUT o_outcome text, OUT o_row baton.accounts, OUT o_now bigint
) LANGUAGE plpgsql AS $$
DECLARE
    v_old baton.accounts;
BEGIN
    SELECT * INTO v_old FROM baton.accounts a WHERE a.id = p_account FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        o_outcome := 'gone';
        RETURN;
    END IF;
    IF v_old.password <> p_update->>'if_password' THEN
        o_outcome := 'overtaken';
        RETURN;
    END IF;
    o_now := baton.baton_now();
    BEGIN
        UPDATE baton.accounts a SET
            uid = coalesce(p_update->>'uid', a.uid),
            uid_key = coalesce(baton.uid_key(p_update->>'uid'), a.uid_key),
            email = coalesce(p_update->>'email', a.email),
            profile = coalesce(p_update->>'profile', a.profile),
            password = coalesce(p_update->>'password', a.password),
            permit_client = CASE WHEN p_update->>'permit_client' IS NULL AND p_update->>'password' IS NULL
                THEN a.permit_client ELSE (p_update->>'permit_client')::uuid END,
            permit_until = CASE WHEN p_update->>'permit_client' IS NULL AND p_update->>'password' IS NULL
                THEN a.permit_until ELSE (p_update->>'permit_until')::bigint END,
            confirmed_at = coalesce(a.confirmed_at, CASE WHEN (p_update->>'confirm')::boolean THEN o_now END),
            unconfirmed_email = CASE WHEN (p_update->>'set_unconfirmed_email')::boolean
                THEN p_update->>'unconfirmed_email' ELSE a.unconfirmed_email END,
            updated_at = greatest(a.updated_at, o_now)
        WHERE a.id = p_account
        RETURNING * INTO o_row;
    EXCEPTION WHEN unique_violation THEN
        -- The name is the only thing in it that has to be unique.
        o_outcome := 'taken';
        RETURN;
    END;
    IF (p_update->>'end')::boolean THEN
        DELETE FROM baton.sessions s
        WHERE s.account = p_account AND s.client IS DISTINCT FROM (p_update->>'end_all_but')::uuid;
    END IF;
    IF (p_update->>'void_one_time')::boolean THEN
        DELETE FROM baton.one_time_tokens t WHERE t.account = p_account;
    END IF;
    o_outcome := 'done';
END
$$;

CREATE FUNCTION baton.update_account(
    p_account bigint, p_update json, p_trace json, OUT o_outcome text, OUT o_row baton.accounts
) LANGUAGE plpgsql AS $$
DECLARE
    v_change record;
BEGIN
    PERFORM baton.durably();
    SELECT * INTO v_change FROM baton.change_account(p_account, p_update);
    o_outcome := v_change.o_outcome;
    o_row := v_change.o_row;
    IF o_outcome = 'done' THEN
        PERFORM baton.leave(p_trace, p_account);
    END IF;
END
$$;

CREATE FUNCTION baton.redeem(
    p_id uuid, p_update json, p_session json, p_trace json,
    OUT o_outcome text, OUT o_row baton.accounts, OUT o_now bigint
) LANGUAGE plpgsql AS $$
DECLARE
    v_account bigint;
    v_purpose text;
    v_change  record;
BEGIN
    PERFORM baton.durably();
    o_outcome := 'gone';
    SELECT t.account INTO v_account FROM baton.one_time_tokens t WHERE t.id = p_id;
    -- The account first, as everywhere.
    PERFORM 1 FROM baton.accounts a WHERE a.id = v_account FOR NO KEY UPDATE;
    SELECT t.purpose INTO v_purpose FROM baton.one_time_tokens t
    WHERE t.id = p_id AND t.account = v_account AND t.expires_at > baton.baton_now()
    FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT * INTO v_change FROM baton.change_account(v_account, p_update);
    o_outcome := v_change.o_outcome;
    o_row := v_change.o_row;
    o_now := v_change.o_now;
    IF o_outcome <> 'done' THEN
        RETURN;
    END IF;
    DELETE FROM baton.one_time_tokens t WHERE t.account = v_account AND t.purpose = v_purpose;
    IF p_session IS NOT NULL THEN
        PERFORM baton.add_session(v_account, p_session, o_now);
    END IF;
    PERFORM baton.leave(p_trace, v_account);
END
$$;

CREATE FUNCTION baton.delete_account(p_account bigint, p_trace json) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM baton.durably();
    PERFORM 1 FROM baton.accounts a WHERE a.id = p_account FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- Sessions and one-time tokens go with it.
    DELETE FROM baton.accounts a WHERE a.id = p_account;
    PERFORM baton.leave(p_trace, p_account);
    RETURN true;
END
$$;

CREATE FUNCTION baton.end_session(p_account bigint, p_client uuid, p_trace json) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM baton.durably();
    DELETE FROM baton.sessions s WHERE s.client = p_client AND s.account = p_account;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM baton.leave(p_trace, p_account);
    RETURN true;
END
$$;

CREATE FUNCTION baton.create_one_time(
    p_id uuid, p_account bigint, p_purpose text, p_email text, p_lifetime bigint
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM baton.durably();
    PERFORM 1 FROM baton.accounts a WHERE a.id = p_account FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO baton.one_time_tokens (id, account, purpose, email, expires_at)
    VALUES (p_id, p_account, p_purpose, p_email, baton.plus(baton.baton_now(), p_lifetime));
    RETURN true;
END
$$;

CREATE FUNCTION baton.void_one_time(p_id uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    DELETE FROM baton.one_time_tokens t WHERE t.id = p_id;
END
$$;

-- Means `Attempts::counted`. `o_locked_until` is null if the attempt may go on.
CREATE FUNCTION baton.count_attempt(
    p_name uuid, p_max_attempts bigint, p_lock_for bigint, p_forget_after bigint,
    OUT o_locked_until bigint, OUT o_last boolean
) LANGUAGE plpgsql AS $$
DECLARE
    v_now   bigint;
    v_count bigint;
    v_row   baton.attempts;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    LOOP
        INSERT INTO baton.attempts (name) VALUES (p_name) ON CONFLICT (name) DO NOTHING;
        SELECT * INTO v_row FROM baton.attempts a WHERE a.name = p_name FOR UPDATE;
        -- Unless it was purged or forgotten in between.
        EXIT WHEN FOUND;
    END LOOP;
    v_now := baton.baton_now();
    IF v_now < v_row.locked_until THEN
        o_locked_until := v_row.locked_until;
        RETURN;
    END IF;
    v_count := CASE WHEN v_row.expires_at <= v_now THEN 1 ELSE least(v_row.count + 1, 4294967295) END;
    o_last := v_count >= p_max_attempts;
    UPDATE baton.attempts a SET
        count = v_count,
        locked_until = CASE WHEN o_last THEN baton.plus(v_now, p_lock_for) END,
        expires_at = baton.plus(v_now, CASE WHEN o_last THEN p_lock_for ELSE p_forget_after END)
    WHERE a.name = p_name;
END
$$;

CREATE FUNCTION baton.forget_attempts(p_name uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    DELETE FROM baton.attempts a WHERE a.name = p_name;
END
$$;

CREATE FUNCTION baton.claim(p_limit bigint, p_lease bigint) RETURNS TABLE (
    o_id bigint, o_attempt bigint, o_created_at bigint, o_mail text, o_url text, o_event baton.audit_events
) LANGUAGE plpgsql AS $$
DECLARE
    v_now bigint;
BEGIN
    PERFORM baton.durably();
    v_now := baton.baton_now();
    RETURN QUERY
    WITH due AS (
        SELECT o.id, o.due_at FROM baton.outbox o WHERE o.due_at <= v_now
        ORDER BY o.due_at, o.id LIMIT p_limit FOR UPDATE SKIP LOCKED
    ), claimed AS (
        UPDATE baton.outbox o SET attempt = o.attempt + 1, due_at = baton.plus(v_now, p_lease)
        FROM due WHERE o.id = due.id
        RETURNING o.id, o.attempt, o.created_at, o.mail, o.url, o.event, due.due_at AS was_due_at
    )
    SELECT c.id, c.attempt, c.created_at, c.mail, c.url, e
    FROM claimed c LEFT JOIN baton.audit_events e ON e.id = c.event
    ORDER BY c.was_due_at, c.id;
END
$$;

-- Without `p_retry`, it is done.
CREATE FUNCTION baton.settle(p_id bigint, p_attempt bigint, p_retry bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF p_retry IS NULL THEN
        PERFORM baton.durably();
        DELETE FROM baton.outbox o WHERE o.id = p_id AND o.attempt = p_attempt;
    ELSE
        PERFORM set_config('synchronous_commit', 'off', true);
        UPDATE baton.outbox o SET due_at = baton.plus(baton.baton_now(), p_retry)
        WHERE o.id = p_id AND o.attempt = p_attempt;
    END IF;
END
$$;

-- Up to `p_limit` of each kind. A session that has been renewed since it was last looked at is put off instead.
CREATE FUNCTION baton.purge(p_limit bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_now    bigint := baton.baton_now();
    v_gone   bigint := 0;
    v_total  bigint := 0;
    v_found  bigint;
    v_purged bigint;
BEGIN
    PERFORM baton.durably();
    LOOP
        WITH due AS (
            SELECT s.client, s.expires_at FROM baton.sessions s WHERE s.purge_at <= v_now
            ORDER BY s.purge_at LIMIT p_limit - v_gone FOR UPDATE SKIP LOCKED
        ), purged AS (
            DELETE FROM baton.sessions s USING due WHERE s.client = due.client AND due.expires_at <= v_now
            RETURNING 1
        ), put_off AS (
            UPDATE baton.sessions s SET purge_at = s.expires_at
            FROM due WHERE s.client = due.client AND due.expires_at > v_now
        )
        SELECT (SELECT count(*) FROM due), (SELECT count(*) FROM purged) INTO v_found, v_purged;
        v_gone := v_gone + v_purged;
        -- Those that are put off count as work done, too: this is one transaction.
        v_total := v_total + v_found;
        EXIT WHEN v_found = 0 OR v_gone >= p_limit OR v_total >= 10 * p_limit;
    END LOOP;
    RETURN v_gone + baton.purge_others(p_limit);
END
$$;

-- The same without sessions.
CREATE FUNCTION baton.purge_others(p_limit bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_now    bigint := baton.baton_now();
    v_gone   bigint;
    v_purged bigint;
BEGIN
    PERFORM baton.durably();
    DELETE FROM baton.one_time_tokens WHERE id = ANY (ARRAY(
        SELECT t.id FROM baton.one_time_tokens t WHERE t.expires_at <= v_now
        ORDER BY t.expires_at LIMIT p_limit FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_gone = ROW_COUNT;

    DELETE FROM baton.attempts WHERE name = ANY (ARRAY(
        SELECT a.name FROM baton.attempts a WHERE a.expires_at <= v_now
        ORDER BY a.expires_at LIMIT p_limit FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_purged = ROW_COUNT;
    RETURN v_gone + v_purged;
END
$$;

CREATE FUNCTION baton.remember_ends() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM baton.durably();
    INSERT INTO baton.remembers_ends DEFAULT VALUES ON CONFLICT DO NOTHING;
END
$$;

CREATE FUNCTION baton.forget_ends(p_clients uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    DELETE FROM baton.ended_sessions e WHERE e.client = ANY (p_clients);
END
$$;

-- Takes over how far a session is that is kept elsewhere.
CREATE FUNCTION baton.note(
    p_client uuid, p_generation bigint, p_handed_out_at bigint, p_confirmed bigint, p_last_seen_at bigint,
    p_expires_at bigint
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    UPDATE baton.sessions s SET
        handed_out_at = CASE WHEN s.generation <= p_generation THEN p_handed_out_at ELSE s.handed_out_at END,
        generation = greatest(s.generation, p_generation),
        confirmed = greatest(s.confirmed, p_confirmed),
        last_seen_at = greatest(s.last_seen_at, p_last_seen_at),
        expires_at = greatest(s.expires_at, p_expires_at),
        -- In an index: only if it is due.
        purge_at = CASE WHEN s.purge_at <= baton.baton_now() THEN greatest(s.expires_at, p_expires_at) ELSE s.purge_at END
    WHERE s.client = p_client;
END
$$;

CREATE FUNCTION baton.purge_events(p_age bigint, p_limit bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_oldest bigint := baton.baton_now() - p_age;
    v_purged bigint;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    DELETE FROM baton.audit_events WHERE id = ANY (ARRAY(
        SELECT e.id FROM baton.audit_events e
        WHERE e.at <= v_oldest AND NOT EXISTS (SELECT 1 FROM baton.outbox o WHERE o.event = e.id)
        ORDER BY e.at LIMIT p_limit FOR UPDATE OF e SKIP LOCKED));
    GET DIAGNOSTICS v_purged = ROW_COUNT;
    RETURN v_purged;
END
$$;

-- False if others are known and none of these.
CREATE FUNCTION baton.bind_keys(p_fingerprints text[]) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM baton.durably();
    LOCK TABLE baton.known_keys IN SHARE ROW EXCLUSIVE MODE;
    IF EXISTS (SELECT 1 FROM baton.known_keys)
        AND NOT EXISTS (SELECT 1 FROM baton.known_keys k WHERE k.fingerprint = ANY (p_fingerprints)) THEN
        RETURN false;
    END IF;
    INSERT INTO baton.known_keys (fingerprint) SELECT unnest(p_fingerprints) ON CONFLICT DO NOTHING;
    RETURN true;
END
$$;

-- A write that changes nothing that anybody looks at.
CREATE FUNCTION baton.touch() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    UPDATE baton.clock SET mark = mark;
END
$$;
