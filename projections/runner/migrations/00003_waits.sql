-- +goose Up
-- Tells two kinds of standing still apart: with true the consumer tries again by itself within seconds (a server is away), with false a
-- person must look, and it looks again slowly.
alter table proj.checkpoint add column waits boolean not null default false;

-- +goose Down
alter table proj.checkpoint drop column waits;
