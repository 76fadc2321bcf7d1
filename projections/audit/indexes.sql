create index entries_at on entries (at);
