-- +goose Up
-- A log may be closed to appends while its tenant moves or leaves: readers go on. It holds the id of whoever closed it, null while the log is
-- open. The application cannot set or clear it: it may move the counter, and nothing else of the row.
alter table es.head add column closed uuid;
revoke update on es.head from factum_app, factum_tenant;
grant update (pos) on es.head to factum_app, factum_tenant;

-- es.append looks at it under the lock that every append takes first, in the very row, and is the same otherwise.
-- +goose StatementBegin
do $do$
declare
  old text := 'update es.head set pos = pos + n returning pos - n into o_first;';
  new text := 'update es.head set pos = pos + n returning pos - n, closed::text into o_first, why;
  if why is not null then
    raise exception ''this log is closed'' using errcode = ''ES001'', detail = why;
  end if;';
  def text := pg_get_functiondef('es.append'::regproc);
begin
  if strpos(def, old) = 0 then
    raise exception 'es.append is not the function that this migration knows';
  end if;
  execute replace(def, old, new);
end $do$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
do $do$
declare
  def text := pg_get_functiondef('es.append'::regproc);
begin
  execute regexp_replace(def, 'returning pos - n, closed::text into o_first, why;.*?end if;', 'returning pos - n into o_first;');
end $do$;
-- +goose StatementEnd
revoke update (pos) on es.head from factum_app, factum_tenant;
grant update on es.head to factum_app, factum_tenant;
alter table es.head drop column closed;
