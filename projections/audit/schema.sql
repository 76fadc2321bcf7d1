-- The audit trail: one row per event of the tenant's log, without personal data.
create table entries (
  position bigint primary key,
  event_id uuid not null,
  at timestamptz not null,                  -- when the command was given
  actor text not null,
  type text not null,
  kind text not null,
  stream_id text not null,
  version bigint not null,
  summary text not null                     -- a sentence for people
);
