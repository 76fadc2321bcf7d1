-- +goose Up
-- A key is published before it signs and verifies for as long as a token that it signed may live.
alter table auth.signing_keys add column signs_from timestamptz;
alter table auth.signing_keys add column verifies_until timestamptz; -- null: until it is replaced
update auth.signing_keys set signs_from = created_at;
alter table auth.signing_keys alter column signs_from set not null, alter column signs_from set default now();

-- +goose Down
alter table auth.signing_keys drop column signs_from, drop column verifies_until;
