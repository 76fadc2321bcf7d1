-- +goose Up
-- Tenants that move: where to, so that the next attempt goes on there. The row goes with the switch.
create table placement.moves (
  tenant text primary key,
  server text not null references placement.servers,
  database text not null,
  begun_at timestamptz not null default now()
);

-- Who has closed a tenant's log to appends, and until when he is waited for: what follows from the closing is decided here, by whoever
-- deletes or changes the row first. A log that is closed with another id than the row's, or whose time is up, may be opened by anybody.
create table placement.fences (
  tenant text primary key,
  fence uuid not null,
  until timestamptz not null,              -- by the clock of this database, and no other
  used boolean not null default false,     -- the switch was made: the log is closed at its new place, for a moment
  check (until < 'infinity')
);

-- Databases that are no tenant's any more, until they are dropped.
create table placement.retired (
  server text not null references placement.servers,
  database text not null,
  tenant text not null,
  role text not null,
  password bytea not null,
  schema jsonb not null,
  created_at timestamptz not null,
  why text not null check (why in ('moved', 'deleted')),
  retired_at timestamptz not null default now(),
  drop_at timestamptz not null,
  shut_at timestamptz,                     -- nobody may connect since; null until that was done
  primary key (server, database)
);
grant select on placement.moves, placement.fences, placement.retired to factum_app;

-- +goose Down
drop table placement.retired;
drop table placement.fences;
drop table placement.moves;
