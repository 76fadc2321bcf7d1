-- +goose Up
-- Accounts that are switched off: none of their sessions holds.
create table auth.inactive (
  user_id uuid primary key,
  since timestamptz not null
);
grant select, insert, delete on auth.inactive to factum_app;
-- Links that were used still count: nobody is mailed more of them by using them up.
grant update (expires_at) on auth.links to factum_app;

-- +goose Down
revoke update (expires_at) on auth.links from factum_app;
drop table auth.inactive;
