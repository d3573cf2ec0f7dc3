-- The truth: an append-only ledger, the totals, and how far the log has been read.
-- Text that takes part in an order is COLLATE "C": the order of UTF-8 bytes, the same in every database
-- and the same as Redis'.

-- Which database this is; a board that follows another one is rebuilt.
CREATE TABLE identity (
  id uuid NOT NULL DEFAULT gen_random_uuid(),
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row)
);
INSERT INTO identity DEFAULT VALUES;

-- How far each partition of the log has been applied. Moves in the same transaction as what it applied.
CREATE TABLE cursor (
  partition integer PRIMARY KEY,
  stream text NOT NULL,            -- the identity of the log; another one is refused
  last bigint NOT NULL,            -- stream sequence of the last applied message
  last_at timestamptz NOT NULL     -- its time of acceptance; the next one is never earlier
);

-- One row an event, for ever. Undoing is a further row; nothing is updated or deleted.
CREATE TABLE events (
  event_id uuid PRIMARY KEY,
  accept_no bigint NOT NULL UNIQUE,  -- stream sequence x 1024 + place in the envelope
  user_id text COLLATE "C" NOT NULL,
  type text COLLATE "C" NOT NULL,
  reference text NOT NULL,
  points bigint NOT NULL,
  boards text[] NOT NULL,
  principal text NOT NULL,
  at timestamptz NOT NULL,           -- time of acceptance
  outcome text NOT NULL CHECK (outcome IN ('applied', 'rejected', 'quarantined', 'revoked')),
  reason text
);

-- The totals: always the sum of the ledger. No further index, and room on each page, so that updates stay HOT.
CREATE TABLE scores (
  board text COLLATE "C" NOT NULL,
  period text COLLATE "C" NOT NULL,
  user_id text COLLATE "C" NOT NULL,
  score bigint NOT NULL CHECK (abs(score) < 9007199254740992),
  reached bigint NOT NULL,           -- the accept_no that gave the current score
  changed bigint NOT NULL,           -- the accept_no that last changed this row
  PRIMARY KEY (board, period, user_id)
) WITH (fillfactor = 80);

-- What is known of a user beside scores; no row means nothing is.
CREATE TABLE users (
  user_id text COLLATE "C" PRIMARY KEY,
  name text,
  hidden boolean NOT NULL DEFAULT false,
  banned boolean NOT NULL DEFAULT false,
  changed bigint NOT NULL            -- the accept_no that last changed this row
) WITH (fillfactor = 80);

-- Every command that came through the log, once.
CREATE TABLE commands (
  command_id uuid PRIMARY KEY,
  accept_no bigint NOT NULL UNIQUE,
  kind text NOT NULL,
  user_id text COLLATE "C" NOT NULL,
  detail text NOT NULL,
  principal text NOT NULL,
  at timestamptz NOT NULL
);

-- Services' keys: only the SHA-256 of their whole text.
CREATE TABLE keys (
  id text PRIMARY KEY,
  hash bytea NOT NULL UNIQUE,
  name text NOT NULL,
  scopes text[] NOT NULL,
  created timestamptz NOT NULL DEFAULT now(),
  revoked timestamptz
);

-- Messages of the log that could not be taken for what they claim to be, whole.
CREATE TABLE dead_letters (
  accept_no bigint PRIMARY KEY,
  at timestamptz NOT NULL,
  reason text NOT NULL,
  body bytea NOT NULL
);
