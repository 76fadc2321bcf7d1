-- +goose Up
create schema proj;

-- How far a generation of a projection has applied a log. Rows and checkpoint move in one transaction, by compare-and-set.
create table proj.checkpoint (
  projection text not null,
  generation int not null,
  tenant text not null,                       -- whose log
  position bigint not null default 0,         -- of last_event
  last_event uuid,                            -- shows that the log was restored behind our back
  state text not null check (state in ('building', 'live', 'retired', 'dropped')),
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

-- Makes a built generation the live one, and answers the new epoch. Answers null and changes nothing while the generation is behind
-- the live one in any log. The old generation is retired, which fences its writers: their compare-and-set matches no row.
-- +goose StatementBegin
create function proj.promote(p text, green int) returns bigint language plpgsql as $$
declare
  blue int;
  ver int;
  e bigint;
begin
  select generation into blue from proj.live where projection = p for update;
  if not found then
    return null;
  end if;
  perform 1 from proj.checkpoint where projection = p and generation in (blue, green) order by generation, tenant for update;
  select min(version) into ver from proj.checkpoint where projection = p and generation = green and state = 'building';
  if ver is null or exists (
    select 1 from proj.checkpoint b
      left join proj.checkpoint g on g.projection = p and g.generation = green and g.tenant = b.tenant and g.state = 'building'
     where b.projection = p and b.generation = blue and b.position > coalesce(g.position, 0)) then
    return null;
  end if;
  update proj.checkpoint set state = 'live' where projection = p and generation = green;
  update proj.checkpoint set state = 'retired', moved_at = now() where projection = p and generation = blue;
  update proj.live set generation = green, version = ver, epoch = epoch + 1 where projection = p returning epoch into e;
  return e;
end $$;
-- +goose StatementEnd

grant usage on schema proj to factum_app, factum_tenant;
grant select, insert, update, delete on all tables in schema proj to factum_app, factum_tenant;
grant execute on function proj.promote(text, int) to factum_app, factum_tenant;
