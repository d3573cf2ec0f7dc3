-- Dead letters hold single entries, too: those that could not be applied, told apart from their batch by bisection.
-- The new columns may be empty or have a default: the version before this one goes on writing the table.
ALTER TABLE dead_letters
  ADD COLUMN partition integer NOT NULL DEFAULT 0,
  ADD COLUMN event_id uuid,                      -- of the entry (or its command); NULL: body is a whole message
  ADD COLUMN user_id text COLLATE "C" NOT NULL DEFAULT '',
  ADD COLUMN tries integer NOT NULL DEFAULT 1,
  ADD COLUMN settled text CHECK (settled IN ('retried', 'dropped'));  -- by an operator; the row stays
-- However often an event is sent again, one letter of it waits.
CREATE UNIQUE INDEX dead_letters_event ON dead_letters (event_id) WHERE settled IS DISTINCT FROM 'retried';
CREATE INDEX dead_letters_waiting ON dead_letters (accept_no) WHERE settled IS NULL;
