create index memberships_user on memberships (user_id, joined_at desc);
-- Not unique: claims in the log see to that, and the rows of erased people keep no address to compare.
create index users_email on users (email);
create index invitations_tenant on invitations (tenant_id, invited_at desc);
create index invitations_email on invitations (email) where state = 'open';
