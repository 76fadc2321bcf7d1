create index memberships_user on memberships (user_id, joined_at desc);
create unique index users_email on users (email) where email <> '';
