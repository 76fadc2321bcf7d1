-- +goose Up
create schema saga;
-- What a saga remembers of an instance that has not come to its end. It moves with the saga's checkpoint.
create table saga.state (
  saga text not null,
  tenant text not null,
  instance text not null,
  state json not null,
  primary key (saga, tenant, instance)
);
grant usage on schema saga to factum_app;
grant select, insert, update, delete on saga.state to factum_app;

-- +goose Down
drop schema saga cascade;
