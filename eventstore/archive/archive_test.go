package archive_test

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/archive"
	"github.com/factum-platform/factum/eventstore/copylog"
	"github.com/factum-platform/factum/eventstore/memstore"
	"github.com/factum-platform/factum/eventstore/pgstore"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const tenant eventstore.TenantID = "acme"

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(n int) eventstore.Write {
	w := eventstore.Write{Stream: eventstore.StreamID{Kind: "doc", ID: fmt.Sprint(n % 7)}, Expected: eventstore.At(eventstore.Version(n / 7)), Events: []eventstore.Proposed{{
		ID: eventstore.NewEventID(tenant, "tester", fmt.Sprint(n), 0), Type: "thing.happened", Schema: 2,
		Data: fmt.Appendf(nil, "{ \"n\":\t%d,\n \"é\": 1.0, \"<&>\": \"\u2028 \\u0041\" }", n), // blanks, the zero and escapes must survive
		Meta: eventstore.Meta{Command: fmt.Sprint(n), Correlation: "r", Actor: "tester", At: time.Date(2026, 1, 2, 3, 4, 5, 678_901_234, time.UTC)},
	}}}
	if n < 7 {
		w.Claims = []eventstore.Claim{{Scope: "name", Key: fmt.Sprintf("\x00\xff%d", n)}}
	}
	return w
}

func fill(t *testing.T, log eventstore.Log, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		_, err := log.Append(t.Context(), write(n))
		must(t, err)
	}
}

var keys = []archive.Key{{Purpose: "mac", Owner: "file", Wrapped: []byte{0, 1, 2}}, {Purpose: "subject", Owner: "olu", Erased: true}}

func yields(list ...archive.Key) iter.Seq2[archive.Key, error] {
	return func(yield func(archive.Key, error) bool) {
		for _, k := range list {
			if !yield(k, nil) {
				return
			}
		}
	}
}

func export(t *testing.T, store eventstore.Store) (path string, m archive.Manifest) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "t.zip")
	f, err := os.Create(path)
	must(t, err)
	m, err = archive.Write(t.Context(), f, archive.Manifest{Tenant: tenant, TenantID: "acme", Name: "North Mill", Engine: "postgres"}, archive.Source{Store: store, Keys: yields(keys...)}, nil)
	must(t, errors.Join(err, f.Close()))
	return path, m
}

func open(t *testing.T, path string) *archive.Archive {
	t.Helper()
	a, err := archive.Open(path)
	must(t, err)
	t.Cleanup(func() { must(t, a.Close()) })
	return a
}

func TestAnArchiveIsTheLog(t *testing.T) {
	source, target := memstore.New(), memstore.New()
	defer source.Close()
	defer target.Close()
	fill(t, source.Tenant(tenant), 0, 1000)
	path, m := export(t, source)
	if m.Events != 1000 || m.Claims != 7 || m.Keys != 2 || m.Head != 1000 || len(m.NotIncluded) == 0 {
		t.Errorf("%+v", m)
	}
	a := open(t, path)
	must(t, a.Verify(t.Context(), nil))
	if a.Manifest.Name != "North Mill" || a.Manifest.LogSHA256 != m.LogSHA256 {
		t.Errorf("%+v", a.Manifest)
	}
	i := 0
	for k, err := range a.Keys() {
		must(t, err)
		if k.Owner != keys[i].Owner || k.Erased != keys[i].Erased || !bytes.Equal(k.Wrapped, keys[i].Wrapped) {
			t.Errorf("%+v", k)
		}
		i++
	}
	log, stop := a.Log()
	defer stop()
	// It goes on behind what is there, as after a kill.
	fill(t, target.Tenant(tenant), 0, 300)
	out, err := (&copylog.Copier{Tenant: tenant, From: log, To: target.Tenant(tenant), MultiStream: true, SamePositions: true}).Run(t.Context())
	if err != nil || out.Found != 300 || out.Added != 700 {
		t.Fatal(out, err)
	}
	r, err := copylog.Compare(t.Context(), tenant, source.Tenant(tenant), target.Tenant(tenant), nil, nil)
	if err != nil || !r.Same() || r.Sums[1] != m.LogSHA256 {
		t.Fatal(r, err)
	}
	for _, limit := range []int{1, 7, 999, 1000, 1001} { // also backwards
		for _, after := range []eventstore.Position{0, 500, 999, 1000, 3} {
			got, err := log.Page(t.Context(), after, limit)
			must(t, err)
			want, err := source.Tenant(tenant).Page(t.Context(), after, limit)
			must(t, err)
			if len(got.Events) != len(want.Events) || got.Through != want.Through || got.Live != want.Live && len(want.Events) < limit {
				t.Fatalf("the page of %d after %d: %d events through %d, live %v", limit, after, len(got.Events), got.Through, got.Live)
			}
		}
	}
	if _, err := log.Append(t.Context(), write(1)); err == nil {
		t.Error("an archive was written")
	}
}

type one struct{ pool *pgxpool.Pool }

func (o one) Pool(context.Context, string) (*pgxpool.Pool, error) { return o.pool, nil }

// TestAnArchiveIsOfOneMoment exports while writers take and give claims: at each head the claims are those that its events make.
func TestAnArchiveIsOfOneMoment(t *testing.T) {
	pool, err := postgres.Open(t.Context(), pgtest.Database(t, postgres.Migrations{Name: "es", FS: pgstore.Migrations()}), 8)
	must(t, err)
	defer pool.Close()
	pg, err := pgstore.Open(t.Context(), pgstore.Config{Databases: one{pool}})
	must(t, err)
	defer pg.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	begun := make(chan struct{})
	wg.Go(func() { // a claim is held at odd heads
		for n := 0; ctx.Err() == nil; n++ {
			w := eventstore.Write{
				Stream: eventstore.StreamID{Kind: "doc", ID: "a"}, Expected: eventstore.At(eventstore.Version(n)), Events: write(n).Events,
				Claims: []eventstore.Claim{{Scope: "s", Key: "k", Give: n%2 == 1}},
			}
			if _, err := pg.Tenant(tenant).Append(ctx, w); err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
			if n == 10 {
				close(begun)
			}
		}
	})
	<-begun
	for range 20 {
		path, m := export(t, pg)
		must(t, open(t, path).Verify(t.Context(), nil))
		if m.Claims != uint64(m.Head)%2 || m.Events != uint64(m.Head) {
			t.Fatalf("%d claims and %d events at position %d", m.Claims, m.Events, m.Head)
		}
	}
	cancel()
	wg.Wait()
}

// contents reads an archive's entries, by name.
func contents(t *testing.T, path string) (names []string, all map[string]string) {
	t.Helper()
	z, err := zip.OpenReader(path)
	must(t, err)
	defer z.Close()
	all = map[string]string{}
	for _, f := range z.File {
		r, err := f.Open()
		must(t, err)
		raw, err := io.ReadAll(r)
		must(t, errors.Join(err, r.Close()))
		names, all[f.Name] = append(names, f.Name), string(raw)
	}
	return names, all
}

// forge writes the entries anew; sums, unless they are left, become those of the contents.
func forge(t *testing.T, names []string, all map[string]string, leaveSums bool) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "forged.zip")
	f, err := os.Create(path)
	must(t, err)
	z := zip.NewWriter(f)
	if !leaveSums {
		var sums strings.Builder
		for _, name := range names {
			if name != "SHA256SUMS" {
				sum := sha256.Sum256([]byte(all[name]))
				fmt.Fprintf(&sums, "%s  %s\n", hex.EncodeToString(sum[:]), name)
			}
		}
		all["SHA256SUMS"] = sums.String()
	}
	for _, name := range names {
		w, err := z.Create(name)
		must(t, err)
		_, err = io.WriteString(w, all[name])
		must(t, err)
	}
	must(t, errors.Join(z.Close(), f.Close()))
	return path
}

func TestDamagedArchivesAreRefused(t *testing.T) {
	store := memstore.New()
	defer store.Close()
	fill(t, store.Tenant(tenant), 0, 50)
	good, _ := export(t, store)
	raw, err := os.ReadFile(good)
	must(t, err)
	names, _ := contents(t, good)
	swapLines := func(s string) string {
		lines := strings.SplitAfter(s, "\n")
		lines[0], lines[1] = lines[1], lines[0]
		return strings.Join(lines, "")
	}
	dropLine := func(s string) string { _, rest, _ := strings.Cut(s, "\n"); return rest }
	for name, tc := range map[string]struct {
		bytes  func([]byte) []byte
		change func(all map[string]string)
		names  []string
		sums   bool // leave them
		want   string
	}{
		"no archive":     {bytes: func([]byte) []byte { return []byte("PK? no") }, want: "it is no archive"},
		"empty":          {bytes: func([]byte) []byte { return nil }, want: "it is no archive"},
		"truncated":      {bytes: func(b []byte) []byte { return b[:len(b)-200] }, want: "its end is missing"},
		"half":           {bytes: func(b []byte) []byte { return b[:len(b)/2] }, want: "its end is missing"},
		"a changed byte": {bytes: func(b []byte) []byte { b[300] ^= 1; return b }, want: "cannot be"},
		"another zip":    {names: []string{"hello.txt"}, want: "not made by 'factum tenants export'"},
		"no keys":        {names: names[:2], want: "holds no keys.jsonl"},
		"a file more":    {names: append([]string{"more"}, names...), want: "1 files besides"},
		"an entry twice": {names: append([]string{"keys.jsonl"}, names...), want: "keys.jsonl twice"},
		"another event": {change: func(all map[string]string) {
			all["events.jsonl"] = strings.Replace(all["events.jsonl"], "tester", "mallory", 1)
		}, sums: true, want: "events.jsonl was changed after it was written"},
		"another claim": {change: func(all map[string]string) {
			all["claims.jsonl"] = strings.Replace(all["claims.jsonl"], `"0"`, `"1"`, 1)
		}, sums: true, want: "claims.jsonl was changed"},
		"another manifest": {change: func(all map[string]string) {
			all["manifest.json"] = strings.Replace(all["manifest.json"], "North", "South", 1)
		}, sums: true, want: "manifest.json was changed"},
		"sums and all forged": {change: func(all map[string]string) {
			all["events.jsonl"] = strings.Replace(all["events.jsonl"], "tester", "mallory", 1)
		}, want: "its manifest says"},
		"no sums":             {change: func(all map[string]string) { all["SHA256SUMS"] = "none\n" }, sums: true, want: "not a list of SHA-256 sums"},
		"out of order":        {change: func(all map[string]string) { all["events.jsonl"] = swapLines(all["events.jsonl"]) }, want: "event 2 lies at position 1, behind one at 2"},
		"an event is missing": {change: func(all map[string]string) { all["events.jsonl"] = dropLine(all["events.jsonl"]) }, want: "whose next one is 1"},
		"a version skipped": {change: func(all map[string]string) {
			all["events.jsonl"] = strings.Replace(all["events.jsonl"], `"version":3`, `"version":4`, 1)
		}, want: "whose next one is 3"},
		"a claim is missing":  {change: func(all map[string]string) { all["claims.jsonl"] = dropLine(all["claims.jsonl"]) }, want: "6 claims and 2 keys, and its manifest says 50, 7"},
		"claims out of order": {change: func(all map[string]string) { all["claims.jsonl"] = swapLines(all["claims.jsonl"]) }, want: "claim 2 is out of order"},
		"a stranger's claim": {change: func(all map[string]string) {
			all["claims.jsonl"] = strings.Replace(all["claims.jsonl"], `"stream":"0"`, `"stream":"x"`, 1)
		}, want: "which has no event"},
		"a key is missing": {change: func(all map[string]string) { all["keys.jsonl"] = dropLine(all["keys.jsonl"]) }, want: "1 keys, and its manifest says"},
		"a key of nothing": {change: func(all map[string]string) {
			all["keys.jsonl"] = strings.Replace(all["keys.jsonl"], `,"erased":true`, "", 1)
		}, want: "neither a key nor an erased one"},
		"data is not JSON": {change: func(all map[string]string) {
			all["events.jsonl"] = strings.Replace(all["events.jsonl"], `"data":"{`, `"data":"`, 1)
		}, want: "event 1: the data of thing.happened is not JSON"},
		"a line is not JSON": {change: func(all map[string]string) { all["events.jsonl"] += "and more\n" }, want: "line 51 of events.jsonl cannot be read"},
		"an unknown field": {change: func(all map[string]string) {
			all["keys.jsonl"] = strings.Replace(all["keys.jsonl"], `"owner"`, `"owned"`, 1)
		}, want: "line 1 of keys.jsonl cannot be read"},
		"a malformed id": {change: func(all map[string]string) {
			all["events.jsonl"] = strings.Replace(all["events.jsonl"], `"id":"`, `"id":"x`, 1)
		}, want: "is not a UUID"},
		"a newer form": {change: func(all map[string]string) {
			all["manifest.json"] = strings.Replace(all["manifest.json"], `"format": 1`, `"format": 2`, 1)
		}, want: "use a newer one"},
		"manifest no JSON": {change: func(all map[string]string) { all["manifest.json"] = "{" }, want: "manifest.json is not JSON"},
		"no tenant": {change: func(all map[string]string) {
			all["manifest.json"] = strings.Replace(all["manifest.json"], `"acme"`, `"A-B"`, 1)
		}, want: "names no tenant"},
		"the platform's log": {change: func(all map[string]string) {
			all["manifest.json"] = strings.Replace(all["manifest.json"], `"acme"`, `"platform"`, 1)
		}, want: "names no tenant"},
		"another last event": {change: func(all map[string]string) {
			all["manifest.json"] = strings.Replace(all["manifest.json"], `"head": 50`, `"head": 51`, 1)
		}, want: "its last event lies at position 50"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "bad.zip")
			if tc.bytes != nil {
				must(t, os.WriteFile(path, tc.bytes(bytes.Clone(raw)), 0o600))
			} else {
				_, all := contents(t, good)
				list := names
				if tc.names != nil {
					list = tc.names
				}
				if tc.change != nil {
					tc.change(all)
				}
				path = forge(t, list, all, tc.sums)
			}
			a, err := archive.Open(path)
			if err == nil {
				err = errors.Join(a.Verify(t.Context(), nil), a.Close())
			}
			var damaged *archive.DamagedError
			if !errors.As(err, &damaged) || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("%v\nwant %s", err, tc.want)
			}
		})
	}
	if _, err := archive.Open(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "there is no file") {
		t.Error(err)
	}
}

// unquiet is a store without snapshots to which somebody always writes.
type unquiet struct {
	eventstore.Store
	n int
}

func (u *unquiet) Tenant(t eventstore.TenantID) eventstore.Log {
	return unquietLog{u.Store.Tenant(t), u}
}

type unquietLog struct {
	eventstore.Log
	store *unquiet
}

func (l unquietLog) Head(ctx context.Context) (eventstore.Position, error) {
	_, err := l.Append(ctx, write(l.store.n))
	l.store.n++
	if err != nil {
		return 0, err
	}
	return l.Log.Head(ctx)
}

func TestALogThatIsNeverQuietIsNotExportedWithoutSnapshots(t *testing.T) {
	store := memstore.New()
	defer store.Close()
	_, err := archive.Write(t.Context(), io.Discard, archive.Manifest{Tenant: tenant}, archive.Source{Store: &unquiet{Store: store}, Keys: yields()}, nil)
	if err == nil || !strings.Contains(err.Error(), "try again later") {
		t.Error(err)
	}
}
