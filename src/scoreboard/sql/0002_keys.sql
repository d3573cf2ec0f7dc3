-- Keys that end by themselves, are for some types of action alone, and are followed by another.
-- All columns may be empty: the version before this one goes on reading and writing the table.
ALTER TABLE keys
  ADD COLUMN prefix text,            -- how the key's text begins: enough to recognise it, too little to use it
  ADD COLUMN actions text[],         -- the types of action it is for; NULL: all
  ADD COLUMN expires timestamptz,    -- from then on it opens nothing
  ADD COLUMN used timestamptz,       -- when it was last used, to the minute
  ADD COLUMN replaced_by text;       -- the key that it was rotated to
