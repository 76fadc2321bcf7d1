-- +goose Up
create schema es;

-- The counter row: a position is drawn by updating it, and the lock that takes is released by the same commit that shows the
-- events. So positions rise in commit order, without gaps, and a reader that pages by position skips nothing. All text is compared
-- by its bytes: that is one order everywhere, and the cheapest.
create table es.head (
  one boolean primary key default true check (one),
  pos bigint not null default 0
) with (fillfactor = 50);
insert into es.head default values;

create table es.events (
  pos bigint primary key,
  kind text collate "C" not null,
  id text collate "C" not null,
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

-- Not compressed: a reader bounds a page by the sizes of its events, which are then known without reading them.
alter table es.events alter column data set storage external;

create table es.claims (
  scope text collate "C" not null,
  key bytea not null,
  kind text collate "C" not null,
  id text collate "C" not null,
  constraint claims_pkey primary key (scope, key)
);

-- +goose StatementBegin
create function es.refuse() returns trigger language plpgsql as $$
begin
  raise exception 'the log is append-only' using errcode = '42501';
end $$;
-- +goose StatementEnd
create trigger append_only before update or delete or truncate on es.events for each statement execute function es.refuse();

-- A batch of appends in one statement, each of them all or nothing. It must run as a statement of its own, never inside a wider
-- transaction. The counter's row is locked first, so that appends to one log take turns, whoever sends them: what is read and checked
-- here stays true until the commit, and positions of what is refused are handed back before anybody else draws one.
--   a_writes, a_claims: how many of the writes and claims, in order, are each append's
--   w_expected: 0 no stream, -1 any existing version, else that version
--   w_count, w_before: how many events the write has, and how many all writes before it have
--   e_*: all events in order; e_write is the write that an event belongs to, e_ord its place in it
--   c_*: all claims in order; c_write is the write that makes it, c_give releases
-- All numbers count from 1 over the batch. The answer:
--   o_first: the position before the first event; the events that are written follow it in their order
--   o_found: the version of each write's stream before the batch
--   o_refused, o_part: null when all appends were done. Else by append: '' done, 'conflict' and the number of the write, or
--     'claimed' and the number of the claim.
-- An event id that is in the log already fails the whole batch (23505 events_id).
-- +goose StatementBegin
create function es.append(
  a_writes integer[], a_claims integer[],
  w_kind text[], w_id text[], w_expected bigint[], w_count integer[], w_before integer[],
  e_write integer[], e_ord integer[], e_id uuid[], e_type text[], e_schema integer[], e_data text[], e_meta text[],
  c_write integer[], c_scope text[], c_key bytea[], c_give boolean[],
  out o_first bigint, out o_found bigint[], out o_refused text[], out o_part integer[]
) language plpgsql set plan_cache_mode = force_generic_plan as $$ -- planned once a session: planning takes longer than an append
declare
  n integer := cardinality(e_id);
  refused integer := 0; -- events of refused appends
  fits boolean;         -- nothing is refused and nothing claimed
  w integer := 0;       -- writes of the appends before
  c integer := 0;       -- claims of the appends before
  why text;
  part integer;
  found bigint;
begin
  update es.head set pos = pos + n returning pos - n into o_first;
  if n = 1 and cardinality(c_write) = 0 then -- a lone event: the same as below in plain values, which costs half
    select coalesce((select e.version from es.events e where e.kind = w_kind[1] and e.id = w_id[1] order by e.version desc limit 1), 0) into found;
    o_found := array[found];
    if found = w_expected[1] or (w_expected[1] = -1 and found > 0) then
      insert into es.events (pos, kind, id, version, event_id, type, schema, data, meta)
        values (o_first + 1, w_kind[1], w_id[1], found + 1, e_id[1], e_type[1], e_schema[1], e_data[1]::json, e_meta[1]::json);
    else
      update es.head set pos = pos - 1;
      o_refused := '{conflict}';
      o_part := '{1}';
    end if;
    return;
  end if;
  select array_agg(s.found order by s.o), bool_and(s.found = s.expected or (s.expected = -1 and s.found > 0)) and cardinality(c_write) = 0
    into o_found, fits
    from (select u.o, u.expected, coalesce(
            (select e.version from es.events e where e.kind = u.kind and e.id = u.id order by e.version desc limit 1), 0) as found
          from unnest(w_kind, w_id, w_expected) with ordinality u(kind, id, expected, o)) s;
  if not fits then
    o_refused := '{}';
    o_part := '{}';
    for a in 1 .. cardinality(a_writes) loop
      why := '';
      part := 0;
      select 'conflict', i into why, part from generate_series(w + 1, w + a_writes[a]) i
        where not (o_found[i] = w_expected[i] or (w_expected[i] = -1 and o_found[i] > 0))
        order by w_kind[i] collate "C", w_id[i] collate "C" limit 1;
      if why is null and a_claims[a] > 0 then
        -- A value that is given and taken in one append passes from one stream to the other.
        with x as (
          select i, c_scope[i] as scope, c_key[i] as key, c_give[i] as give, w_kind[c_write[i]] as kind, w_id[c_write[i]] as id
            from generate_series(c + 1, c + a_claims[a]) i)
        select 'claimed', t.i into why, part
          from x t left join es.claims h on h.scope = t.scope and h.key = t.key
          where not t.give and (
            ((h.kind, h.id) <> (t.kind, t.id) and not exists (
              select from x g where g.give and g.scope = t.scope and g.key = t.key and g.kind = h.kind and g.id = h.id))
            or exists (
              select from x o where not o.give and o.scope = t.scope and o.key = t.key and (o.kind, o.id) <> (t.kind, t.id) and o.i < t.i))
          order by t.scope collate "C", t.key, t.i limit 1;
      end if;
      if why is null and a_claims[a] > 0 then
        delete from es.claims h using generate_series(c + 1, c + a_claims[a]) i
          where c_give[i] and h.scope = c_scope[i] and h.key = c_key[i] and h.kind = w_kind[c_write[i]] and h.id = w_id[c_write[i]];
        insert into es.claims select c_scope[i], c_key[i], w_kind[c_write[i]], w_id[c_write[i]]
          from generate_series(c + 1, c + a_claims[a]) i where not c_give[i] on conflict do nothing; -- its own already
      end if;
      for i in w + 1 .. w + a_writes[a] loop
        if why is null then
          w_before[i] := w_before[i] - refused;
        else
          w_before[i] := -1;
        end if;
      end loop;
      if why is not null then
        for i in w + 1 .. w + a_writes[a] loop
          refused := refused + w_count[i];
        end loop;
      end if;
      o_refused[a] := coalesce(why, '');
      o_part[a] := coalesce(part, 0);
      w := w + a_writes[a];
      c := c + a_claims[a];
    end loop;
    if refused > 0 then
      update es.head set pos = pos - refused;
    end if;
  end if;
  insert into es.events (pos, kind, id, version, event_id, type, schema, data, meta)
    select o_first + w_before[u.w] + u.ord, w_kind[u.w], w_id[u.w], o_found[u.w] + u.ord, u.i, u.t, u.sc, u.d::json, u.m::json
      from unnest(e_write, e_ord, e_id, e_type, e_schema, e_data, e_meta) u(w, ord, i, t, sc, d, m)
      where w_before[u.w] >= 0;
end $$;
-- +goose StatementEnd

grant usage on schema es to factum_app, factum_tenant;
grant select, insert on es.events to factum_app, factum_tenant;
grant select, update on es.head to factum_app, factum_tenant;
grant select, insert, update, delete on es.claims to factum_app, factum_tenant;

-- +goose Down
drop schema es cascade;
