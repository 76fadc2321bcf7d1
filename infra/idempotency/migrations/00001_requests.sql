-- +goose Up
create schema idempotency;
-- Requests with an Idempotency-Key: which of them run, and what those that are done were answered.
create table idempotency.requests (
  id bytea primary key,                    -- HMAC of who, in which tenant, under which key
  request bytea not null,                  -- HMAC of method, path and body; of a body that is not gathered, see content
  content bytea,                           -- HMAC of a body that was read as it arrived, once it was
  attempt uuid not null,                   -- who works on it
  running_until timestamptz not null,      -- unless it is renewed; an attempt whose process ended leaves the rest of it
  status int,                              -- null while it runs
  header json,
  answer bytea,                            -- sealed under the key-encryption key; null where it holds a secret and is not kept
  expires_at timestamptz not null
);
create index requests_expiry on idempotency.requests (expires_at);
grant usage on schema idempotency to factum_app;
grant select, insert, update, delete on idempotency.requests to factum_app;

-- +goose Down
drop schema idempotency cascade;
