-- Read model of the control plane: users, tenants, memberships, invitations and administrators. Readers find it as <schema>.users and so on.
create table users (
  id uuid primary key,
  email text not null,
  email_verified boolean not null,
  first_name text not null,
  last_name text not null,
  is_active boolean not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  version bigint not null              -- of the user's stream
);
create table tenants (
  id uuid primary key,
  name text not null,
  database_name text not null,
  provisioned boolean not null,        -- readers show a tenant once it is true
  is_active boolean not null,
  tsa_enabled boolean not null,
  require_if_match boolean not null default false,
  tsa_provider text,                   -- null until first enabled
  created_by uuid not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  version bigint not null default 0    -- of the tenant's stream; 0 until it was met
);
create table memberships (
  tenant_id uuid not null,
  user_id uuid not null,
  role text not null,                  -- admin, user, viewer
  joined_at timestamptz not null,
  primary key (tenant_id, user_id)
);
create table member_lists (             -- a tenant's members are one stream
  tenant_id uuid primary key,
  version bigint not null
);
create table administrators (           -- of the platform; a tenant's admins are memberships
  user_id uuid primary key,
  since timestamptz not null
);
create table invitations (              -- of addresses to tenants; who has an account and who has not looks alike
  id uuid primary key,
  tenant_id uuid not null,
  email text not null,
  role text not null,                  -- admin, user, viewer
  state text not null,                 -- open, accepted, declined, revoked; an open one may have expired
  invited_by uuid not null,
  invited_at timestamptz not null,
  expires_at timestamptz not null,
  answered_at timestamptz              -- null while it is open
);
