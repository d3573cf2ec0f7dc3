-- Named statements of dead letters; the form is that of queries.sql.

-- insert_dead_letters: set aside what cannot be applied; one letter of each event waits
INSERT INTO dead_letters (accept_no, at, reason, body, partition, event_id, user_id, tries)
SELECT * FROM unnest($1::bigint[], $2::timestamptz[], $3::text[], $4::bytea[], $5::integer[], $6::uuid[], $7::text[], $8::integer[])
ON CONFLICT DO NOTHING;

-- letter: one dead letter, whole
SELECT accept_no, at, reason, body, partition, event_id, user_id, tries, settled FROM dead_letters WHERE accept_no = $1;

-- letters: those that wait for an operator, or all, oldest first
SELECT accept_no, at, reason, body, partition, event_id, user_id, tries, settled
FROM dead_letters WHERE settled IS NULL OR $2 ORDER BY accept_no LIMIT $1;

-- count_letters: how many wait for an operator
SELECT count(*) FROM dead_letters WHERE settled IS NULL;

-- settle_letter: an operator has decided; nothing is removed
UPDATE dead_letters SET settled = $2 WHERE accept_no = $1;

-- became: what has become of a letter's event or command that came again by itself
SELECT state, reason FROM states WHERE event_id = $1
UNION ALL SELECT 'applied', NULL FROM commands WHERE command_id = $1;

-- reopen_letter: its event is no longer revoked before it came; one that has come needs no letter
UPDATE dead_letters SET settled = NULL
WHERE event_id = $1 AND settled = 'dropped' AND NOT EXISTS (SELECT FROM events WHERE event_id = $1)
RETURNING accept_no;

-- still_dead: it was tried again, in vain
UPDATE dead_letters SET tries = tries + 1, reason = $2, settled = NULL WHERE accept_no = $1;

-- insert_settled: what was commanded; unless a command was tried again: that one has this place in the log now
INSERT INTO commands (command_id, accept_no, kind, user_id, detail, principal, at)
SELECT $1, $2, $3, $4, $5, $6, $7 WHERE NOT EXISTS (SELECT FROM commands WHERE accept_no = $2);
