-- +goose Up
create schema ratelimit;
-- What was spent of each quota, shared by all API processes. Not logged: a server that crashes forgets it, and no commit waits for a disk.
create unlogged table ratelimit.buckets (
  scope text not null,                     -- address, user, tenant
  key bytea not null,                      -- HMAC, so that the table names nobody
  used_until timestamptz not null,         -- when the whole quota is there again
  granted int not null,                    -- by the last lease
  primary key (scope, key)
) with (fillfactor = 70);
grant usage on schema ratelimit to factum_app;
grant select, insert, update, delete on ratelimit.buckets to factum_app;

-- +goose Down
drop schema ratelimit cascade;
