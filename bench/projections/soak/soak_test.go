package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/factum-platform/factum/bench/site"
	"github.com/factum-platform/factum/infra/devstack"
)

// program is the factum that all tests run.
var program string

func TestMain(m *testing.M) {
	if devstack.RunChild() {
		return
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "factum-soak-test-")
	if err == nil {
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "factum")
		err = site.Build(context.Background(), program)
	}
	code := 1
	if err == nil {
		code = m.Run()
	}
	if code == 0 {
		err = goleak.Find()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		code = 1
	}
	return code
}

// finds tells whether the output has a line of that name that begins with the value.
func finds(out, name, value string) bool {
	return regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + `: +` + value + `\b`).MatchString(out)
}

// TestReadersNoticeNoRebuild is make soak-rebuild in small.
func TestReadersNoticeNoRebuild(t *testing.T) {
	var out, progress bytes.Buffer
	if err := start(t.Context(), []string{"rebuild", "--factum", program, "--events", "2000", "--rate", "15", "--around", "1s"}, &out, &progress); err != nil {
		t.Fatalf("%v\n%s\n%s", err, progress.String(), out.String())
	}
	t.Logf("\n%s", out.String())
	if !finds(out.String(), "failures", "0") || !finds(out.String(), "answers that went backwards", "0") || finds(out.String(), "requests", "0") {
		t.Error(progress.String())
	}
}

// TestWhatWentBackwardsIsFound gives answers that show less than earlier ones, one after the other.
func TestWhatWentBackwardsIsFound(t *testing.T) {
	status, position, total := http.StatusOK, "7", 3
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Factum-Position", position)
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"data":{"pagination":{"total":%d}}}`, total)
	}))
	defer api.Close()
	r := &readers{client: site.ClientOf(api.URL, "token"), known: []string{"a"}}
	defer r.client.Close()
	ask := func(n, failures, backwards int) {
		t.Helper()
		if err := r.request(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		if r.failures.count != failures || r.backwards.count != backwards {
			t.Errorf("failures: %s; backwards: %s", &r.failures, &r.backwards)
		}
	}
	const list, document = 11, 12
	ask(list, 0, 0)
	ask(document, 0, 0)
	position = "6"
	ask(document, 0, 1)
	position, total = "8", 2
	ask(list, 0, 2)
	status = http.StatusNotFound
	ask(document, 0, 3)
	status = http.StatusServiceUnavailable
	ask(document, 1, 3)
}

// TestProjectorsAreKilled is make soak-projectors in small; a change behind the projectors' back is then found.
func TestProjectorsAreKilled(t *testing.T) {
	var out, progress bytes.Buffer
	flags := []string{"projectors", "--factum", program, "--during", "5s", "--tenants", "2", "--lifetime", "3s", "--rate", "6"}
	if err := start(t.Context(), flags, &out, &progress); err != nil {
		t.Fatalf("%v\n%s\n%s", err, progress.String(), out.String())
	}
	t.Logf("\n%s", out.String())
	if finds(out.String(), "kills of projectors", "0") || finds(out.String(), "uploads", "0") || !finds(out.String(), "differences", "0") {
		t.Error(progress.String())
	}
}

// TestDifferencesAreFound changes a read model and a log, each in a way that the projectors do not notice.
func TestDifferencesAreFound(t *testing.T) {
	var progress bytes.Buffer
	err := run(t.Context(), options{Config: site.Config{Program: program}}, func(s *soak, ctx context.Context) (err error) {
		tenant, err := s.platform.NewTenant(ctx, "North Mill")
		if err != nil {
			return err
		}
		if _, err := s.platform.Fill(ctx, tenant, 100, nil, nil); err != nil {
			return err
		}
		serving, err := s.site.Serve(ctx)
		if err != nil {
			return err
		}
		tenants := []site.Tenant{tenant}
		err = s.await(ctx, "apply", settleLimit, func(ctx context.Context) (string, error) { return s.behind(ctx, tenants) })
		if err := errors.Join(err, serving.Stop()); err != nil {
			return err
		}
		conn, err := pgx.Connect(ctx, s.site.DSN(tenant.Database))
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		if _, err := conn.Exec(ctx, `update documents_g1.documents set filename = 'other' where id = (select min(id::text)::uuid from documents_g1.documents)`); err != nil {
			return err
		}
		c, err := s.compare(ctx, tenants)
		if err != nil {
			return err
		}
		if c.differences.count != 1 || !strings.Contains(c.differences.String(), "documents of "+string(tenant.Log)+": table documents") {
			t.Errorf("one changed row is found as: %s", &c.differences)
		}
		if c.files == 0 || c.stamps.count != c.files { // nobody has asked for stamps here
			t.Errorf("%d files, of them %d not stamped once", c.files, c.stamps.count)
		}
		return nil
	}, io.Discard, &progress)
	if err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
}

func TestWrongArgumentsAreNamed(t *testing.T) {
	for want, args := range map[string][]string{
		"want rebuild or projectors": {"everything"},
		"at least 100 events":        {"rebuild", "--events", "1"},
		"a rate above 0":             {"projectors", "--rate", "0"},
	} {
		if err := start(t.Context(), args, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v; want %s", args, err, want)
		}
	}
	if err := start(t.Context(), nil, io.Discard, io.Discard); err == nil {
		t.Error("nothing to do was accepted")
	}
}
