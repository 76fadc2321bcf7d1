package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/factum-platform/factum/commands/rest"
)

// TestDevRenewsReadModels: read models that an older binary wrote are built anew before factum dev says that it is ready.
func TestDevRenewsReadModels(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	p, info := startDevOn(t, data)
	c, tenant := tenantClient(t, info)
	up, err := uploadOne(t.Context(), c.base, c.token, tenant, 1)
	must(t, err)
	awaitStamped(t, c, tenant, up.file)
	before := answers(t, c, tenant)

	dev := &site{t: t, dsn: info.DatabaseURL}
	const older = `update proj.live set version = 0 where projection in ('documents', 'directory');
		update proj.checkpoint set version = 0 where projection in ('documents', 'directory')`
	dev.exec(older)
	dev.in(tenant, `with l as (update proj.live set version = 0 where projection = 'documents')
		update proj.checkpoint set version = 0 where projection = 'documents' returning projection`)
	if code := p.kill(syscall.SIGTERM); code != 0 {
		t.Fatal(code, p.output)
	}

	p, info = startDevOn(t, data)
	c.base = info.BaseURL
	awaitAnswers(t, c, tenant, before)
	out := launchFactum(t, "projections", "list", "--json", "--data="+data).ended(t, 0)
	var list []rest.Consumer
	must(t, json.Unmarshal([]byte(out), &list))
	var got []string
	for _, s := range list {
		if s.State == "running" && (s.Projection != "directory" || s.Tenant == "platform") && s.Projection != "timestamping" && s.Projection != "welcoming" && s.Projection != "inviting" {
			got = append(got, s.Projection, string(rune('0'+s.Generation)), string(rune('0'+s.Version)))
		}
	}
	if strings.Join(got, " ") != "audit 1 1 directory 2 2 documents 2 3" {
		t.Errorf("%s\n%s", got, out)
	}
	if out := launchFactum(t, "projections", "rebuild", "audit", "--all", "--data="+data).ended(t, 0); !strings.Contains(out, "rows, same") {
		t.Error(out)
	}
	if code := p.kill(syscall.SIGTERM); code != 0 {
		t.Fatal(code, p.output)
	}
}
