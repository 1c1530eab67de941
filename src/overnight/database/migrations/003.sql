-- The history is asked for the last event of a kind, or for those of a kind since another one, however long it is.
CREATE INDEX events_by_kind ON events (kind, id);
