create index documents_newest on documents (created_at desc, id desc);
create index documents_file on documents (file_id);
create index files_newest on files (created_at desc, id desc);
create index files_stamp on files (ts_status) where ts_status <> 'success';
create index documents_words on documents using gin (words);
create index files_orphans on files (created_at desc, id desc) where document_count = 0;
