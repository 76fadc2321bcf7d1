-- +goose Up
create schema placement;
-- Which database a tenant has, and how to log in to it. Written by provisioning, last; not a read model.
create table placement.databases (
  tenant text primary key,
  database text not null unique,
  role text not null unique,
  password bytea not null,                 -- sealed under the key-encryption key
  created_at timestamptz not null default now()
);
grant usage on schema placement to factum_app;
grant select, insert on placement.databases to factum_app;

-- +goose Down
drop schema placement cascade;
