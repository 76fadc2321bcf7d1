-- +goose Up
-- The PostgreSQL servers that hold tenants' databases. 'main' is the one that also holds the platform's database: its URL is a setting.
create table placement.servers (
  name text primary key check (name ~ '^[a-z][a-z0-9-]{0,30}$'),
  dsn bytea,                               -- its administrator's URL, sealed under the key-encryption key
  identifier text,                         -- PostgreSQL's own id of the server, which a copy of its files keeps
  accepting boolean not null default true, -- new tenants
  added_at timestamptz not null default now(),
  check ((dsn is null) = (name = 'main'))
);
insert into placement.servers (name) values ('main');
grant select on placement.servers to factum_app;

alter table placement.databases
  add column server text not null default 'main' references placement.servers,
  add column schema jsonb not null default '{}'; -- version by set of migrations; a set is missing until somebody has looked
create index databases_server on placement.databases (server);

-- Where a tenant is being made, so that the next attempt after a crash goes on there.
create table placement.begun (
  tenant text primary key,
  server text not null references placement.servers,
  begun_at timestamptz not null default now()
);

-- What 'factum tenants migrate' did, a row for each database of each run. tenant is '' for a server's template.
create table placement.migrations (
  run text not null,
  tenant text not null,
  server text not null,
  began_at timestamptz not null,
  seconds double precision not null,
  from_schema jsonb not null,
  to_schema jsonb not null,
  result text not null check (result in ('migrated', 'current', 'failed')),
  error text,
  binary_version text not null,
  primary key (run, server, tenant)
);
create index migrations_began_at on placement.migrations (began_at);

-- Running processes forget what they remember of a tenant, or of a server (':' and its name).
-- +goose StatementBegin
create function placement.tell() returns trigger language plpgsql as $$
begin
  if tg_table_name = 'servers' then
    perform pg_notify('placement', ':' || old.name);
  else
    perform pg_notify('placement', old.tenant);
  end if;
  return null;
end $$;
-- +goose StatementEnd
create trigger tell after update of server, database, role, password, schema or delete on placement.databases for each row execute function placement.tell();
create trigger tell after update of dsn or delete on placement.servers for each row execute function placement.tell();

-- +goose Down
drop trigger tell on placement.databases;
drop table placement.migrations;
drop table placement.begun;
alter table placement.databases drop column schema, drop column server;
drop table placement.servers;
drop function placement.tell();
