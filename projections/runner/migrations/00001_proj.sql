-- +goose Up
create schema proj;

-- How far a generation of a projection has applied a log. Rows and checkpoint move in one transaction, by compare-and-set.
create table proj.checkpoint (
  projection text not null,
  generation int not null,
  tenant text not null,                       -- whose log
  position bigint not null default 0,         -- of last_event
  last_event uuid,                            -- shows that the log was restored behind our back
  state text not null check (state = 'live'),  -- a generation that is built beside the live one will be another
  version int not null,                       -- of the projection's code
  moved_at timestamptz not null default now(),
  error text,                                 -- why the consumer stands still; null while it moves
  primary key (projection, generation, tenant)
);

-- The generation that queries read. Numbers are never used again; epoch counts the promotions.
create table proj.live (
  projection text primary key,
  generation int not null,
  version int not null,
  epoch bigint not null default 1
);

-- Streams that are skipped from an event on, because it cannot be applied.
create table proj.parked (
  projection text not null,
  generation int not null,
  tenant text not null,
  kind text not null,
  stream_id text not null,
  from_version bigint not null,
  event_id uuid not null,
  error text not null,
  at timestamptz not null default now(),
  primary key (projection, generation, tenant, kind, stream_id)
);

grant usage on schema proj to factum_app, factum_tenant;
grant select, insert, update, delete on all tables in schema proj to factum_app, factum_tenant;
