-- Undoing, held back events, rules of actions, and who did what: all as further rows.

-- A row that amends another event changes what that event counts for. Its points are what it adds to the totals;
-- its outcome is the amended event's state from then on. So the totals stay the sum of the ledger.
ALTER TABLE events ADD COLUMN amends uuid;           -- the event that this row amends; null: an event itself
ALTER TABLE events ADD COLUMN retry_at timestamptz;  -- when a new action of the type can succeed
-- One command may amend many events, so a place in the log is an event's own, and many amendments'.
ALTER TABLE events DROP CONSTRAINT events_accept_no_key;
CREATE UNIQUE INDEX events_accept_no ON events (accept_no) WHERE amends IS NULL;
CREATE INDEX amendments_accept_no ON events (accept_no) WHERE amends IS NOT NULL;
CREATE UNIQUE INDEX amendments ON events (amends, accept_no) WHERE amends IS NOT NULL;
CREATE INDEX events_held ON events (accept_no) WHERE outcome = 'quarantined' AND amends IS NULL;
CREATE INDEX events_user ON events (user_id, accept_no);
CREATE INDEX events_at ON events USING brin (at);

-- Each event with its state: the newest amendment's outcome, or its own. "before" is the state before that.
CREATE VIEW states AS
SELECT e.event_id, e.accept_no, e.user_id, e.type, e.reference, e.points, e.boards, e.principal, e.at, e.retry_at,
       e.outcome AS decided,
       coalesce(a.outcomes[1], e.outcome) AS state,
       CASE WHEN a.outcomes IS NULL THEN NULL ELSE coalesce(a.outcomes[2], e.outcome) END AS before,
       CASE WHEN a.outcomes IS NULL THEN e.reason ELSE a.reasons[1] END AS reason
FROM events e LEFT JOIN LATERAL (
  SELECT array_agg(b.outcome ORDER BY b.accept_no DESC) AS outcomes, array_agg(b.reason ORDER BY b.accept_no DESC) AS reasons
  FROM events b WHERE b.amends = e.event_id
) a ON true
WHERE e.amends IS NULL;

-- Does any counted event stand? Without one the user has no entry; the row stays, with the version of its removal.
ALTER TABLE scores ADD COLUMN standing boolean NOT NULL DEFAULT true;

-- What has counted of a type for a user, as far as the type's rules ask. A digest of the ledger: a row that is
-- missing, or was made under other windows, is counted anew.
CREATE TABLE counts (
  user_id text COLLATE "C" NOT NULL,
  type text COLLATE "C" NOT NULL,
  rules text NOT NULL,               -- the windows under which this was counted
  last_at timestamptz,               -- time of acceptance of the last counted event
  in_window integer NOT NULL,
  in_hour bigint NOT NULL,
  PRIMARY KEY (user_id, type)
) WITH (fillfactor = 80);

-- Events that were revoked before they were applied, by the partition that was told so.
CREATE TABLE planted (
  event_id uuid NOT NULL,
  partition integer NOT NULL,
  accept_no bigint NOT NULL,
  PRIMARY KEY (event_id, partition)
);

-- Every administrative act: who, what, when, why. A row for each partition that carried it out.
CREATE TABLE audit (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  act uuid NOT NULL,
  at timestamptz NOT NULL,
  who text NOT NULL,
  what text NOT NULL,
  target text NOT NULL,
  why text NOT NULL,
  events bigint,
  users bigint
);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the table % only grows', TG_TABLE_NAME; END $$;
CREATE TRIGGER only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON audit EXECUTE FUNCTION refuse_change();
CREATE TRIGGER only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON events EXECUTE FUNCTION refuse_change();
