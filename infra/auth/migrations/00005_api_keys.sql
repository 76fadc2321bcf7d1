-- +goose Up
-- Keys with which machines call the API, each in one tenant and one role.
create table auth.api_keys (
  id uuid primary key,
  tenant_id uuid not null,
  name text not null,
  role text not null,
  hash bytea not null,                     -- SHA-256 of the secret, which has 256 random bits
  created_by uuid not null,
  created_at timestamptz not null,
  expires_at timestamptz not null,
  last_used_at timestamptz,                -- at most a minute old
  revoked_at timestamptz
);
create index api_keys_tenant on auth.api_keys (tenant_id, created_at);
grant select, insert, delete on auth.api_keys to factum_app;
grant update (last_used_at, revoked_at) on auth.api_keys to factum_app;

-- +goose Down
drop table auth.api_keys;
