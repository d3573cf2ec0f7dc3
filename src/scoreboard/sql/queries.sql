-- Named statements: a line "-- name: what it is for", then the statement.

-- identity: which database this is
SELECT id::text FROM identity;

-- lock_partition: wait until this session is the one that applies the partition
SELECT pg_advisory_lock($1, $2);

-- position: how far a partition has been applied
SELECT stream, last, last_at FROM cursor WHERE partition = $1;

-- positions: how far each partition has been applied
SELECT partition, last FROM cursor;

-- durability: the settings that decide whether a commit survives the power, as this session sees them
SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit');

-- all_positions: how far each partition of which log has been applied
SELECT partition, stream, last, last_at FROM cursor ORDER BY partition;

-- replant: what was revoked before it came is known to so many partitions
INSERT INTO planted SELECT p.event_id, n, min(p.accept_no) FROM planted p, generate_series(0, $1::integer - 1) AS n
GROUP BY p.event_id, n ON CONFLICT DO NOTHING;

-- unplant_others: partitions that there are no more are told nothing, and must not tell it if there are more again
DELETE FROM planted WHERE partition >= $1;

-- try_partition: for an act beside the worker: is nobody applying this partition, and will nobody until it is done?
SELECT pg_try_advisory_xact_lock($1, $2);

-- tables: which of these tables are there: their columns in order, and the one that numbers itself
SELECT c.relname AS name, array_agg(a.attname::text ORDER BY a.attnum) FILTER (WHERE a.attgenerated = '') AS columns,
       max(a.attname) FILTER (WHERE a.attidentity <> '') AS numbered
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND c.relname = ANY($1::text[])
GROUP BY c.relname;

-- begin_partition: read a partition for the first time
INSERT INTO cursor (partition, stream, last, last_at) VALUES ($1, $2, $3, 'epoch') ON CONFLICT DO NOTHING;

-- move_cursor: no row means that another worker is ahead
UPDATE cursor SET last = $3, last_at = $4 WHERE partition = $1 AND stream = $2 AND last = $5;

-- known_events: which of these have been decided before, and how (as in the view "states"). One look at a key for
-- each, whatever the planner knows of the tables.
SELECT e.event_id, coalesce(a.outcome, e.outcome) AS state,
       CASE WHEN a.outcome IS NULL THEN e.reason ELSE a.reason END AS reason, e.points, e.boards, e.retry_at
FROM unnest($1::uuid[]) AS wanted (event_id)
CROSS JOIN LATERAL (SELECT * FROM events WHERE event_id = wanted.event_id OFFSET 0) e
LEFT JOIN LATERAL (
  SELECT outcome, reason FROM events WHERE amends = e.event_id ORDER BY accept_no DESC LIMIT 1
) a ON true
WHERE e.amends IS NULL;

-- planted: which of these were revoked before they came
SELECT event_id FROM planted WHERE event_id = ANY($1::uuid[]) AND partition = $2;

-- any_planted: is there an event that was revoked before it came?
SELECT EXISTS (SELECT FROM planted WHERE partition = $1);

-- known_commands: which of these have been carried out before
SELECT command_id FROM commands WHERE command_id = ANY($1::uuid[]);

-- users: what is known of these users
SELECT user_id, name, hidden, banned, changed FROM users WHERE user_id = ANY($1::text[]);

-- scores: where these users stand on these boards; one look at a key for each
SELECT s.* FROM unnest($1::text[], $2::text[]) AS wanted (board, user_id) CROSS JOIN LATERAL (
  SELECT board, user_id, score, reached, changed, standing FROM scores
  WHERE board = wanted.board AND period = 'all' AND user_id = wanted.user_id OFFSET 0
) s;

-- upsert_scores: the totals follow, absolute, in one order of locking; lists as text, see bookkeeping.py
INSERT INTO scores (board, period, user_id, score, reached, changed)
SELECT board, 'all', user_id, score, reached, changed
FROM unnest(
  string_to_array($1::text, chr(10)), string_to_array($2::text, chr(10)),
  $3::text::bigint[], $4::text::bigint[], $5::text::bigint[]
) AS s (board, user_id, score, reached, changed)
ON CONFLICT (board, period, user_id)
DO UPDATE SET score = excluded.score, reached = excluded.reached, changed = excluded.changed, standing = true;

-- upsert_users: the newest names and marks
INSERT INTO users (user_id, name, hidden, banned, changed)
SELECT * FROM unnest($1::text[], $2::text[], $3::boolean[], $4::boolean[], $5::bigint[])
ON CONFLICT (user_id) DO UPDATE
SET name = excluded.name, hidden = excluded.hidden, banned = excluded.banned, changed = excluded.changed;

-- insert_commands: what was commanded, once each
INSERT INTO commands (command_id, accept_no, kind, user_id, detail, principal, at)
SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[]);

-- event: one event, whole; one that is not in the ledger may be among the dead letters
SELECT event_id, user_id, state, reason, points, boards, at, retry_at FROM states WHERE event_id = $1
UNION ALL
SELECT event_id, user_id, CASE WHEN settled = 'dropped' THEN 'revoked' ELSE 'dead' END, NULL, NULL, NULL, at, NULL
FROM dead_letters
WHERE event_id = $1 AND settled IS DISTINCT FROM 'retried' AND NOT EXISTS (SELECT FROM events WHERE event_id = $1);

-- known: whose name is known, or a score on the board; a mark alone makes nobody known
SELECT w.board, w.user_id, CASE WHEN u.hidden THEN NULL ELSE u.name END AS name
FROM unnest($1::text[], $2::text[]) AS w (board, user_id)
LEFT JOIN LATERAL (SELECT name, hidden FROM users WHERE user_id = w.user_id OFFSET 0) u ON true
LEFT JOIN LATERAL (
  SELECT true AS scored FROM scores WHERE board = w.board AND period = 'all' AND user_id = w.user_id OFFSET 0
) s ON true
WHERE u.name IS NOT NULL OR s.scored;

-- changed_rows: one board's current rows of all users that the log touched after a place in it
SELECT s.user_id, s.score, s.reached, greatest(s.changed, coalesce(u.changed, 0)) AS changed,
       u.name, coalesce(u.hidden, false) OR NOT s.standing AS hidden
FROM (SELECT user_id FROM events WHERE amends IS NULL AND accept_no > $2
      UNION SELECT user_id FROM events WHERE amends IS NOT NULL AND accept_no > $2
      UNION SELECT user_id FROM commands WHERE accept_no > $2) AS touched
JOIN scores s ON s.board = $1 AND s.period = 'all' AND s.user_id = touched.user_id
LEFT JOIN users u ON u.user_id = s.user_id;

-- all_events: the ledger, whole, in its order
SELECT accept_no, event_id, at, user_id, type, reference, points, boards, principal, outcome, reason, retry_at, amends
FROM events ORDER BY accept_no, event_id;

-- all_rows: one board's current rows, whole
SELECT s.user_id, s.score, s.reached, greatest(s.changed, coalesce(u.changed, 0)) AS changed,
       u.name, coalesce(u.hidden, false) AS hidden
FROM scores s LEFT JOIN users u ON u.user_id = s.user_id
WHERE s.board = $1 AND s.period = 'all' AND s.standing;

-- rows_after: one board's current rows in order of users, after one of them; also of those without an entry
SELECT s.user_id, s.score, s.reached, greatest(s.changed, coalesce(u.changed, 0)) AS changed,
       u.name, coalesce(u.hidden, false) OR NOT s.standing AS hidden
FROM scores s LEFT JOIN users u ON u.user_id = s.user_id
WHERE s.board = $1 AND s.period = 'all' AND s.user_id > $2 ORDER BY s.user_id LIMIT $3;

-- rows_of: one board's current rows of these users; also of those without an entry
SELECT s.user_id, s.score, s.reached, greatest(s.changed, coalesce(u.changed, 0)) AS changed,
       u.name, coalesce(u.hidden, false) OR NOT s.standing AS hidden
FROM scores s LEFT JOIN users u ON u.user_id = s.user_id
WHERE s.board = $1 AND s.period = 'all' AND s.user_id = ANY($2::text[]);

-- count_rows: how many rows a board has
SELECT count(*) FROM scores WHERE board = $1 AND period = 'all' AND standing;

-- key_by_hash: services' keys that open something, and for how many seconds more
SELECT hash, id, scopes, actions, extract(epoch FROM expires - now())::float8 AS seconds
FROM keys WHERE hash = ANY($1::bytea[]) AND revoked IS NULL AND (expires IS NULL OR expires > now());

-- standing_keys: which of these keys have not been revoked, whether or not they have ended by themselves
SELECT id FROM keys WHERE id = ANY($1::text[]) AND revoked IS NULL;

-- use_keys: these keys have been used; several processes say so, one a minute is enough
UPDATE keys SET used = now() WHERE id = ANY($1::text[]) AND (used IS NULL OR used < now() - interval '1 minute');

-- insert_key: a new key
INSERT INTO keys (id, hash, name, scopes, prefix, actions, expires)
VALUES ($1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7::integer));

-- succeed_key: a new key that may do what this one may, for as long as this one was made for
INSERT INTO keys (id, hash, name, scopes, prefix, actions, expires)
SELECT $2, $3, name, scopes, $4, actions, now() + (expires - created)
FROM keys
WHERE id = $1 AND revoked IS NULL AND replaced_by IS NULL AND (expires IS NULL OR expires > now())
FOR UPDATE
RETURNING id;

-- retire_key: it has a successor, and ends
UPDATE keys SET replaced_by = $2, expires = least(expires, now() + make_interval(secs => $3::integer)) WHERE id = $1;

-- prolong_key: it lives on for so long from now
UPDATE keys SET expires = now() + make_interval(secs => $2::integer) WHERE id = $1 AND revoked IS NULL;

-- list_keys: all keys, oldest first; but none that has ended and is called so
SELECT id, name, prefix, scopes, actions, created, used, expires, revoked, replaced_by,
       CASE WHEN revoked IS NOT NULL THEN 'revoked' WHEN expires <= now() THEN 'expired' ELSE 'active' END AS state
FROM keys
WHERE NOT (coalesce(starts_with(name, $1), false) AND (revoked IS NOT NULL OR coalesce(expires <= now(), false)))
ORDER BY created, id;

-- revoke_key: from now on this key opens nothing
UPDATE keys SET revoked = now() WHERE id = $1 AND revoked IS NULL;

-- unsummed: totals that are not the sum of the ledger's rows, or not what its standing events come to
WITH amended AS (
  SELECT DISTINCT ON (amends) amends, outcome FROM events WHERE amends IS NOT NULL ORDER BY amends, accept_no DESC
), standing AS (
  SELECT board, user_id, sum(points) AS score,
         coalesce(max(accept_no) FILTER (WHERE points <> 0), min(accept_no)) AS reached
  FROM events e LEFT JOIN amended a ON a.amends = e.event_id, unnest(boards) AS board
  WHERE e.amends IS NULL AND coalesce(a.outcome, e.outcome) = 'applied'
  GROUP BY board, user_id
), rows AS (
  SELECT board, user_id, sum(points) AS score FROM events, unnest(boards) AS board
  WHERE outcome = 'applied' OR amends IS NOT NULL GROUP BY board, user_id
)
SELECT coalesce(s.board, r.board, l.board) AS board, coalesce(s.user_id, r.user_id, l.user_id) AS user_id,
       s.score AS total, r.score::bigint AS ledger, s.reached AS reached, l.reached AS ledger_reached
FROM (SELECT * FROM scores WHERE period = 'all') s
FULL JOIN rows r ON r.board = s.board AND r.user_id = s.user_id
FULL JOIN standing l ON l.board = coalesce(s.board, r.board) AND l.user_id = coalesce(s.user_id, r.user_id)
WHERE coalesce(s.score, 0) <> coalesce(r.score, 0) OR coalesce(r.score, 0) <> coalesce(l.score, 0)
   OR coalesce(s.standing, false) <> (l.reached IS NOT NULL) OR (s.standing AND s.reached <> l.reached)
   OR s.board IS NULL
LIMIT 100;

-- ledger_size: how many events, users and points the ledger holds
SELECT count(*) FILTER (WHERE amends IS NULL) AS events, count(DISTINCT user_id) AS users,
       coalesce(sum(points) FILTER (WHERE outcome = 'applied' OR amends IS NOT NULL), 0)::bigint AS points
FROM events;
