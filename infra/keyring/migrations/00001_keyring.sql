-- +goose Up
create schema keyring;
-- One wrapped key per tenant and owner: a person's data key (purpose 'subject') or a tenant's HMAC key (purpose 'mac').
-- A row without key is a destroyed key: it keeps a new one from being made.
create table keyring.keys (
  tenant text not null,
  purpose text not null,
  owner text not null,
  wrapped bytea,
  created_at timestamptz not null default now(),
  erased_at timestamptz,
  primary key (tenant, purpose, owner),
  constraint keys_erased check ((wrapped is null) = (erased_at is not null))
);
grant usage on schema keyring to factum_app;
grant select, insert, update on keyring.keys to factum_app;

-- +goose Down
drop schema keyring cascade;
