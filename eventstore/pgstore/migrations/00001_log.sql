-- +goose Up
create schema es;

-- The counter row: a position is drawn by updating it, and the lock that takes is released by the same commit that shows the
-- events. So positions rise in commit order, without gaps, and a reader that pages by position skips nothing.
create table es.head (
  one boolean primary key default true check (one),
  pos bigint not null default 0
) with (fillfactor = 50);
insert into es.head default values;

create table es.streams (
  kind text not null,
  id text not null,
  version bigint not null,
  primary key (kind, id)
) with (fillfactor = 80);

create table es.events (
  pos bigint primary key,
  kind text not null,
  id text not null,
  version bigint not null,
  event_id uuid not null,
  type text not null,
  schema integer not null,
  data json not null,                                      -- json, not jsonb: it keeps the very bytes
  meta json not null,
  recorded_at timestamptz not null default clock_timestamp(), -- information only, never an order
  constraint events_stream_version unique (kind, id, version),
  constraint events_id unique (event_id)
);

create table es.claims (
  scope text not null,
  key bytea not null,
  kind text not null,
  id text not null,
  constraint claims_pkey primary key (scope, key)
);

-- +goose StatementBegin
create function es.refuse() returns trigger language plpgsql as $$
begin
  raise exception 'the log is append-only' using errcode = '42501';
end $$;
-- +goose StatementEnd
create trigger append_only before update or delete or truncate on es.events for each statement execute function es.refuse();

-- One append: all writes or none. It must run as a statement of its own, never inside a wider transaction, because the last lock
-- that it takes is the counter's. w_expected: 0 no stream, -1 any existing version, else that version. The arrays e_* hold the
-- events in order, e_write the write (from 1) and e_ord the place in it (from 1); c_* hold the claims, c_give releases. A refusal's
-- detail is the number, from 1, of the write (ES001) or of the claim (ES002).
-- +goose StatementBegin
create function es.append(
  w_kind text[], w_id text[], w_expected bigint[], w_count integer[],
  e_write integer[], e_ord integer[], e_id uuid[], e_type text[], e_schema integer[], e_data text[], e_meta text[],
  c_write integer[], c_scope text[], c_key bytea[], c_give boolean[]
) returns table (o_write integer, o_version bigint, o_pos bigint) language plpgsql as $$
declare
  n integer := cardinality(e_id);
  versions bigint[] := array_fill(0::bigint, array[cardinality(w_kind)]);
  w integer;
  v bigint;
  p bigint;
  c record;
begin
  -- Streams and claims are locked in one order by everybody, so that two appends cannot wait for each other.
  for w in select u.o::integer from unnest(w_kind, w_id) with ordinality u(k, i, o) order by u.k collate "C", u.i collate "C" loop
    v := null;
    if w_expected[w] = 0 then
      insert into es.streams as s values (w_kind[w], w_id[w], w_count[w]) on conflict do nothing returning s.version into v;
    elsif w_expected[w] = -1 then
      update es.streams s set version = s.version + w_count[w] where s.kind = w_kind[w] and s.id = w_id[w] returning s.version into v;
    else
      update es.streams s set version = s.version + w_count[w]
        where s.kind = w_kind[w] and s.id = w_id[w] and s.version = w_expected[w] returning s.version into v;
    end if;
    if v is null then
      raise exception 'conflict' using errcode = 'ES001', constraint = 'events_stream_version', detail = w::text;
    end if;
    versions[w] := v;
  end loop;
  if cardinality(c_write) > 0 then
    -- A value that is given and taken in one append passes from one stream to the other.
    for c in select u.* from unnest(c_write, c_scope, c_key, c_give) with ordinality u(write, scope, key, give, o)
             order by u.scope collate "C", u.key, not u.give loop
      if c.give then
        delete from es.claims x where x.scope = c.scope and x.key = c.key and x.kind = w_kind[c.write] and x.id = w_id[c.write];
      else
        -- The update changes nothing: it finds out, under the row's lock, whether the claim is this stream's own already.
        insert into es.claims as x values (c.scope, c.key, w_kind[c.write], w_id[c.write])
          on conflict on constraint claims_pkey do update set kind = excluded.kind where x.kind = excluded.kind and x.id = excluded.id;
        if not found then
          raise exception 'claimed' using errcode = 'ES002', constraint = 'claims_pkey', detail = c.o::text;
        end if;
      end if;
    end loop;
  end if;
  update es.head set pos = pos + n returning pos into p; -- the last lock; held until the commit that follows at once
  insert into es.events (pos, kind, id, version, event_id, type, schema, data, meta)
    select p - n + u.o, w_kind[u.w], w_id[u.w], versions[u.w] - w_count[u.w] + u.ord, u.i, u.t, u.sc, u.d::json, u.m::json
      from unnest(e_write, e_ord, e_id, e_type, e_schema, e_data, e_meta) with ordinality u(w, ord, i, t, sc, d, m, o);
  return query
    select u.w, versions[u.w], max(p - n + u.o) from unnest(e_write) with ordinality u(w, o) group by u.w order by u.w;
end $$;
-- +goose StatementEnd

grant usage on schema es to factum_app, factum_tenant;
grant select, insert on es.events to factum_app, factum_tenant;
grant select, insert, update on es.streams to factum_app, factum_tenant;
grant select, update on es.head to factum_app, factum_tenant;
grant select, insert, update, delete on es.claims to factum_app, factum_tenant;

-- +goose Down
drop schema es cascade;
