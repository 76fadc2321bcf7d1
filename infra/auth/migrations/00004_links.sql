-- +goose Up
-- What a mailed link proves: that its reader reads the mails of this account. Only hashes are kept.
create table auth.links (
  hash bytea primary key,                  -- SHA-256 of the token, which has 256 random bits
  purpose text not null,
  user_id uuid not null,
  created_at timestamptz not null,
  expires_at timestamptz not null
);
create index links_user on auth.links (user_id, purpose);
create index links_expiry on auth.links (expires_at);
grant select, insert, delete on auth.links to factum_app;

-- +goose Down
drop table auth.links;
