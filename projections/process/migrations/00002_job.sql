-- +goose Up
-- Keys of all jobs that a saga ever asked for. River forgets a job a day after it is done; this table does not, so that a log
-- that is read again leads to no job twice.
create table saga.job (
  key uuid primary key,
  saga text not null,
  tenant text not null
);
grant select, insert on saga.job to factum_app;

-- +goose Down
drop table saga.job;
