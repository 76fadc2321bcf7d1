-- Read model of one tenant's documents and files with their time-stamps.
create table files (
  id uuid primary key,
  sha256_hash text not null,
  md5_hash text not null,
  s3_path text not null,
  file_size bigint not null,
  document_count integer not null,
  created_by uuid not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  ts_status text not null default 'none',   -- none, pending, success, error (abandoned)
  ts_attempts integer not null default 0,
  ts_reason text,                           -- why the last attempt failed
  ts_requested_at timestamptz,
  ts_last_attempt timestamptz,
  ts_next_attempt timestamptz,              -- null unless pending; the request's own time before the first attempt
  ts_response bytea,                        -- TimeStampResp, DER
  ts_gen_time timestamptz,
  ts_serial text,
  ts_policy text,
  ts_algorithm text,
  ts_authority text,
  ts_stamped_at timestamptz,
  version bigint not null                   -- of the file's stream
);
create table documents (
  id uuid primary key,
  file_id uuid not null,
  filename text not null,
  mime_type text not null,
  user_id uuid not null,
  created_by uuid not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  version bigint not null,                  -- of the document's stream
  metadata jsonb not null,                  -- an object of strings
  name_words text not null,                 -- the name's words, with a blank between two
  metadata_words text not null,             -- those of the metadata's keys and values
  words tsvector not null generated always as (array_to_tsvector(string_to_array(name_words, ' ') || string_to_array(metadata_words, ' '))) stored
);
