-- +goose Up
-- Tenants whose log may have grown since their projections were last seen at its end. A writer marks a tenant before it appends, and the
-- projector removes the mark of one that has been at rest for a while: the databases of all others need not be asked.
create table placement.activity (
  tenant text primary key,
  marked_at timestamptz not null default now()
);
-- Why all tenants were marked once: a set of projections that had never met them.
create table placement.activity_reasons (
  reason text primary key,
  at timestamptz not null default now()
);
grant select, insert, update, delete on placement.activity to factum_app;
grant select, insert on placement.activity_reasons to factum_app;

-- A tenant that is new on its database is marked, whoever placed it there, so that its read models are built before its first event.
-- +goose StatementBegin
create function placement.mark_placed() returns trigger language plpgsql as $$
begin
  insert into placement.activity (tenant) values (new.tenant) on conflict (tenant) do update set marked_at = now();
  return null;
end $$;
-- +goose StatementEnd
create trigger mark_placed after insert or update on placement.databases for each row execute function placement.mark_placed();
insert into placement.activity (tenant) select d.tenant from placement.databases d;

-- +goose Down
drop trigger mark_placed on placement.databases;
drop function placement.mark_placed();
drop table placement.activity_reasons;
drop table placement.activity;
