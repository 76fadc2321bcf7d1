-- +goose Up
-- What people need to recognise a session of theirs.
alter table auth.sessions add column agent text not null default '';         -- User-Agent of the log-in, shortened
alter table auth.sessions add column refreshed_at timestamptz;
update auth.sessions set refreshed_at = created_at;
alter table auth.sessions alter column refreshed_at set not null, alter column refreshed_at set default now();

-- Failed log-ins. Keys are HMACs, so that the table names neither people nor machines; an address that has no account is counted
-- like any other.
create table auth.attempts (
  scope text not null check (scope in ('account', 'address')),
  key bytea not null,
  failures int not null,
  last_at timestamptz not null,
  blocked_until timestamptz not null,
  primary key (scope, key)
);
create index attempts_last on auth.attempts (last_at);
grant select, insert, update, delete on auth.attempts to factum_app;

-- +goose Down
drop table auth.attempts;
alter table auth.sessions drop column agent, drop column refreshed_at;
