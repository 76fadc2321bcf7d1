-- +goose Up
create schema auth;
-- Not facts: they are changed and deleted, and no log holds them.
create table auth.credentials (
  user_id uuid primary key,
  login_key bytea not null,                -- HMAC of the e-mail address
  hash text not null,                      -- argon2id in PHC form; bcrypt of older systems is accepted and replaced
  created_at timestamptz not null default now(),
  changed_at timestamptz not null default now()
);
create index credentials_login_key on auth.credentials (login_key, created_at);
create table auth.sessions (
  id uuid primary key,
  user_id uuid not null,
  refresh_id uuid not null,                -- jti of the one refresh token that is still good
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  ended_at timestamptz
);
create index sessions_user on auth.sessions (user_id);
create index sessions_expiry on auth.sessions (expires_at);
create table auth.signing_keys (
  kid text primary key,
  sealed_seed bytea not null,              -- Ed25519 seed, sealed under the key-encryption key
  created_at timestamptz not null default now()
);
grant usage on schema auth to factum_app;
grant select, insert, update, delete on auth.credentials, auth.sessions to factum_app;
grant select, insert on auth.signing_keys to factum_app;

-- +goose Down
drop schema auth cascade;
