-- Which programs still work with this schema: those that know at least the migration of this number. A migration
-- that takes something away from older ones raises it; all others only add, and leave it.
ALTER TABLE identity ADD COLUMN oldest integer NOT NULL DEFAULT 0;
