-- +goose Up
-- Passwords of login roles that serve the platform's database. Only the administrator reads them: nothing is granted.
create table placement.logins (
  role text primary key,
  password bytea not null,                 -- sealed under the key-encryption key
  created_at timestamptz not null default now()
);

-- Which engine holds the logs, written at the first start. Positions in read models and checkpoints are that engine's.
create table placement.log (
  one boolean primary key default true check (one),
  engine text not null,
  moving_to text,                          -- checkpoints are being translated to this engine's positions
  since timestamptz not null default now()
);
grant select on placement.log to factum_app;

-- A platform that is older than this table has its log on PostgreSQL, beside it.
-- +goose StatementBegin
do $$
declare pos bigint := 0;
begin
  if to_regclass('es.head') is not null then
    execute 'select h.pos from es.head h' into pos;
  end if;
  if pos > 0 then
    insert into placement.log (engine) values ('postgres');
  end if;
end $$;
-- +goose StatementEnd

-- +goose Down
drop table placement.log;
drop table placement.logins;
