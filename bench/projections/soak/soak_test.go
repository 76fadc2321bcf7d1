package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/factum-platform/factum/bench/projections/site"
	"github.com/factum-platform/factum/infra/devstack"
)

func TestMain(m *testing.M) {
	if devstack.RunChild() {
		return
	}
	code := m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, "goroutines were left running:", err)
		code = 1
	}
	os.Exit(code)
}

// finds tells whether the output has a line of that name that begins with the value.
func finds(out, name, value string) bool {
	return regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + `: +` + value + `\b`).MatchString(out)
}

// TestProjectorsAreKilled is make soak-projectors in small; a change behind the projectors' back is then found.
func TestProjectorsAreKilled(t *testing.T) {
	var out, progress bytes.Buffer
	flags := []string{"projectors", "--during", "5s", "--tenants", "2", "--lifetime", "3s", "--rate", "8"}
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
	err := run(t.Context(), options{}, func(s *soak, ctx context.Context) (err error) {
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
