-- +goose Up
-- A generation is built beside the live one, becomes live, is retired when the next one does, and is dropped a day later.
alter table proj.checkpoint drop constraint checkpoint_state_check;
alter table proj.checkpoint
  add constraint checkpoint_state_check check (state in ('building', 'live', 'retired', 'dropped')),
  -- Raised by whatever changes what a writer remembers of the consumer: its parked streams, whether it is paused. A writer's move demands
  -- the revision that it loaded.
  add column revision bigint not null default 0,
  add column retired_at timestamptz;

alter table proj.parked add column attempts int not null default 1; -- to apply the event, by the writer and by operators

-- Consumers that an operator has stopped, whatever their generation.
create table proj.paused (
  projection text not null,
  tenant text not null,                       -- whose log
  by_actor text not null,
  at timestamptz not null default now(),
  primary key (projection, tenant)
);
grant select, insert, update, delete on proj.paused to factum_app, factum_tenant;

-- Makes a generation that was built the live one, in one step for all logs that it consumes, and retires the one that was: a writer of the
-- old one finds no row to move any more and rolls back its slice. Null, and nothing changed, when the new one is not as far as the old one.
-- Queries resolve the pointer in a snapshot of their own and wait for nothing.
-- +goose StatementBegin
create function proj.promote(p text, green int) returns bigint language plpgsql as $$
declare
  blue int;
  promoted int;
  e bigint;
begin
  select l.generation into blue from proj.live l where l.projection = p for update;
  if blue is null or blue = green then
    raise exception 'there is no live generation of % beside %', p, green using errcode = 'P0002';
  end if;
  perform from proj.checkpoint c where c.projection = p and c.generation in (blue, green) order by c.generation, c.tenant for update;
  if exists (
    select from proj.checkpoint b
      left join proj.checkpoint g on g.projection = p and g.generation = green and g.tenant = b.tenant and g.state = 'building'
      where b.projection = p and b.generation = blue and b.state = 'live' and (g.position is null or g.position < b.position)
  ) then
    return null;
  end if;
  select min(c.version) into promoted from proj.checkpoint c where c.projection = p and c.generation = green and c.state = 'building';
  if promoted is null then
    return null;
  end if;
  update proj.checkpoint c set state = 'live', error = null where c.projection = p and c.generation = green and c.state = 'building';
  update proj.checkpoint c set state = 'retired', retired_at = now() where c.projection = p and c.generation = blue and c.state = 'live';
  update proj.live l set generation = green, version = promoted, epoch = l.epoch + 1 where l.projection = p returning l.epoch into e;
  return e;
end $$;
-- +goose StatementEnd

-- +goose Down
drop function proj.promote(text, int);
drop table proj.paused;
alter table proj.parked drop column attempts;
delete from proj.checkpoint where state <> 'live';
alter table proj.checkpoint drop column retired_at, drop column revision, drop constraint checkpoint_state_check;
alter table proj.checkpoint add constraint checkpoint_state_check check (state = 'live');
