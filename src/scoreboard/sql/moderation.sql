-- Named statements of undoing, explaining and auditing; the form is that of queries.sql.

-- make_amending: the amendments of one command, gathered
CREATE TEMP TABLE amending (
  event_id uuid, user_id text COLLATE "C", type text COLLATE "C", reference text, points bigint, boards text[], outcome text, effect bigint
) ON COMMIT DROP;

-- revoke: what counts, or is held back, is undone
INSERT INTO amending
SELECT event_id, user_id, type, reference, points, boards, 'revoked', CASE state WHEN 'applied' THEN -points ELSE 0 END
FROM states WHERE state IN ('applied', 'quarantined');

-- restore: what was revoked is what it was before; what never was judged counts, if it is named
INSERT INTO amending
SELECT event_id, user_id, type, reference, points, boards, outcome, CASE outcome WHEN 'applied' THEN points ELSE 0 END
FROM (SELECT *, CASE WHEN before IN ('applied', 'quarantined') THEN before ELSE 'applied' END AS outcome FROM states) s
WHERE state = 'revoked';

-- release: what was held back counts
INSERT INTO amending
SELECT event_id, user_id, type, reference, points, boards, 'applied', points FROM states
WHERE decided = 'quarantined' AND state = 'quarantined';

-- reject: what was held back does not count
INSERT INTO amending
SELECT event_id, user_id, type, reference, points, boards, 'rejected', 0 FROM states
WHERE decided = 'quarantined' AND state = 'quarantined';

-- amended_users: whose events would be amended
SELECT DISTINCT user_id FROM amending;

-- keep_users: the others are another partition's
DELETE FROM amending WHERE NOT user_id = ANY($1::text[]);

-- keep_in_range: who would leave the range of scores is left as is
DELETE FROM amending WHERE user_id IN (
  SELECT m.user_id
  FROM (SELECT user_id, board, sum(effect) AS effect FROM amending, unnest(boards) AS board GROUP BY user_id, board) m
  LEFT JOIN scores s ON s.board = m.board AND s.period = 'all' AND s.user_id = m.user_id
  WHERE abs(coalesce(s.score, 0) + m.effect) >= 9007199254740992
);

-- amended: how many events, and whose
SELECT count(*) AS events, count(DISTINCT user_id) AS users FROM amending;

-- differences: what it would do to totals
SELECT m.board, m.user_id, coalesce(s.score, 0) AS score, (coalesce(s.score, 0) + m.effect)::bigint AS score_after, m.events
FROM (SELECT board, user_id, sum(effect) AS effect, count(*) AS events FROM amending, unnest(boards) AS board GROUP BY board, user_id) m
LEFT JOIN scores s ON s.board = m.board AND s.period = 'all' AND s.user_id = m.user_id AND s.standing
ORDER BY abs(m.effect) DESC, m.board, m.user_id LIMIT $1;

-- insert_amendments: the ledger grows; an amendment's id follows from the command's and the event's
INSERT INTO events (event_id, accept_no, user_id, type, reference, points, boards, principal, at, outcome, reason, amends)
SELECT encode(substr(sha256(uuid_send($1::uuid) || uuid_send(event_id)), 1, 16), 'hex')::uuid,
       $2, user_id, type, reference, effect, boards, $3, $4, outcome, CASE outcome WHEN 'rejected' THEN 'moderation' END, event_id
FROM amending;

-- sum_amended: the totals of all whom it touched, anew from the ledger, in one order of locking
INSERT INTO scores AS s (board, period, user_id, score, reached, changed, standing)
SELECT m.board, 'all', m.user_id, coalesce(l.score, 0), coalesce(l.reached, 0), $1, l.score IS NOT NULL
FROM (SELECT DISTINCT board, user_id FROM amending, unnest(boards) AS board) m
LEFT JOIN (
  SELECT board, user_id, sum(points) AS score, coalesce(max(accept_no) FILTER (WHERE points <> 0), min(accept_no)) AS reached
  FROM states, unnest(boards) AS board
  WHERE user_id IN (SELECT user_id FROM amending) AND state = 'applied'
  GROUP BY board, user_id
) l ON l.board = m.board AND l.user_id = m.user_id
ORDER BY m.board, m.user_id
ON CONFLICT (board, period, user_id)
DO UPDATE SET score = excluded.score, reached = excluded.reached, changed = excluded.changed, standing = excluded.standing;

-- amended_rows: what boards must be told
SELECT s.board, s.user_id, CASE WHEN s.standing AND NOT coalesce(u.hidden, false) THEN s.score END AS score, s.reached, s.changed, u.name
FROM (SELECT DISTINCT board, user_id FROM amending, unnest(boards) AS board) m
JOIN scores s ON s.board = m.board AND s.period = 'all' AND s.user_id = m.user_id
LEFT JOIN users u ON u.user_id = s.user_id;

-- forget_counts: what was counted under the rules is counted anew when it is asked for
DELETE FROM counts c USING (SELECT DISTINCT user_id, type FROM amending) a WHERE c.user_id = a.user_id AND c.type = a.type;

-- plant: revoke an event that has not been applied yet
INSERT INTO planted (event_id, partition, accept_no)
SELECT $1, $2, $3 WHERE NOT EXISTS (SELECT FROM events WHERE event_id = $1) ON CONFLICT DO NOTHING;

-- uproot: it shall be judged like any other when it comes
DELETE FROM planted WHERE event_id = $1 AND partition = $2;

-- counts: what has counted so far of these types for these users
SELECT c.user_id, c.type, c.rules, c.last_at, c.in_window, c.in_hour
FROM unnest($1::text[], $2::text[]) AS wanted (user_id, type)
JOIN counts c ON c.user_id = wanted.user_id AND c.type = wanted.type;

-- last_counted: the ledger's own answer, if no digest of it is kept
SELECT w.user_id, w.type, max(s.at) AS last_at
FROM unnest($1::text[], $2::text[]) AS w (user_id, type)
JOIN states s ON s.user_id = w.user_id AND s.type = w.type AND s.state IN ('applied', 'quarantined')
GROUP BY w.user_id, w.type;

-- counted_since: counted events since the beginning of a window, and points applied since that of an hour
SELECT w.user_id, w.type, count(*) FILTER (WHERE s.at >= w.since) AS in_window,
       coalesce(sum(s.points) FILTER (WHERE s.at >= w.hour AND s.state = 'applied'), 0)::bigint AS in_hour
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[]) AS w (user_id, type, since, hour)
JOIN states s ON s.user_id = w.user_id AND s.type = w.type AND s.state IN ('applied', 'quarantined')
 AND s.at >= least(w.since, w.hour)
GROUP BY w.user_id, w.type;

-- forget_other_counts: of types that have no rules now, nobody keeps them up; a rule of tomorrow must not find them
DELETE FROM counts WHERE NOT type = ANY($1::text[]);

-- upsert_counts: the digest follows
INSERT INTO counts (user_id, type, rules, last_at, in_window, in_hour)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::integer[], $6::bigint[])
ON CONFLICT (user_id, type) DO UPDATE
SET rules = excluded.rules, last_at = excluded.last_at, in_window = excluded.in_window, in_hour = excluded.in_hour;

-- unknown: of which of these is nothing known? a mark alone makes nobody known
SELECT field FROM (VALUES
  ('userId', $1::text IS NOT NULL AND NOT EXISTS (SELECT FROM events WHERE user_id = $1)
             AND NOT EXISTS (SELECT FROM users WHERE user_id = $1 AND name IS NOT NULL)),
  ('keyId', $2::text IS NOT NULL AND NOT EXISTS (SELECT FROM keys WHERE id = $2)),
  ('eventId', $3::uuid IS NOT NULL AND NOT EXISTS (SELECT FROM events WHERE event_id = $3 AND amends IS NULL))
) AS asked (field, unknown) WHERE unknown;

-- insert_audit: who did what, when and why
INSERT INTO audit (act, at, who, what, target, why, events, users) VALUES ($1, coalesce($2, now()), $3, $4, $5, $6, $7, $8);

-- list_audit: the newest acts, all partitions of one together; but none on keys that are called so
SELECT a.act, min(a.at) AS at, a.who, k.name AS key_name, a.what, a.target, a.why,
       sum(a.events)::bigint AS events, sum(a.users)::bigint AS users, max(a.number) AS number
FROM audit a LEFT JOIN keys k ON 'key:' || k.id = a.who
WHERE NOT EXISTS (SELECT FROM keys WHERE a.target = 'key ' || id AND a.what LIKE 'key %' AND starts_with(name, $3))
GROUP BY a.act, a.who, k.name, a.what, a.target, a.why
HAVING max(a.number) < $1 ORDER BY max(a.number) DESC LIMIT $2;

-- list_held: what is held back, oldest first
SELECT event_id, accept_no, user_id, type, reference, points, boards, principal, at
FROM states WHERE decided = 'quarantined' AND state = 'quarantined' AND accept_no > $1 ORDER BY accept_no LIMIT $2;

-- history: the ledger of one user, newest first
SELECT e.event_id, e.accept_no, e.amends, e.type, e.reference, e.points, e.boards, e.principal, e.at, e.outcome, e.reason, e.retry_at
FROM events e WHERE e.user_id = $1 AND (e.accept_no, e.event_id) < ($2::bigint, $3::uuid)
ORDER BY e.accept_no DESC, e.event_id DESC LIMIT $4;

-- history_acts: which acts amended, or undid before they came, and why; of the same at the same time what changed something
SELECT DISTINCT ON (e.event_id) e.event_id, a.act, a.why
FROM events e
LEFT JOIN planted p ON e.amends IS NULL AND p.event_id = e.event_id
JOIN commands c ON c.accept_no = CASE WHEN e.amends IS NULL THEN p.accept_no ELSE e.accept_no END
JOIN audit a ON a.at = c.at AND a.who = c.principal AND a.what = c.kind AND a.target = c.detail
WHERE e.event_id = ANY($1::uuid[]) ORDER BY e.event_id, a.events DESC, a.number;

-- history_totals: what a user's ledger came to on each board, up to and with one of its rows
SELECT board, sum(points)::bigint AS score
FROM events, unnest(boards) AS board
WHERE user_id = $1 AND (accept_no, event_id) <= ($2::bigint, $3::uuid) AND (outcome = 'applied' OR amends IS NOT NULL)
GROUP BY board;
