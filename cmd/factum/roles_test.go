package main

import (
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestParseRoles(t *testing.T) {
	for _, tc := range []struct {
		names      []string
		want, fail string
	}{
		{[]string{"api", "projector", "worker"}, "api,projector,worker", ""},
		{[]string{"worker", " api ", "worker"}, "worker,api", ""},
		{[]string{"projector"}, "projector", ""},
		{nil, "", "names no role; name one or more of api,projector,worker"},
		{[]string{""}, "", `"" is not a role; name one or more of api,projector,worker`},
		{[]string{"api", "relay"}, "", `"relay" is not a role; name one or more of api,projector,worker`},
		{[]string{"API"}, "", `"API" is not a role`},
	} {
		got, err := parseRoles(tc.names)
		if got.String() != tc.want || (err == nil) != (tc.fail == "") || (err != nil && !strings.Contains(err.Error(), tc.fail)) {
			t.Errorf("%q: %q, %v", tc.names, got, err)
		}
	}
}

// observed fetches a page of a process as a monitor would.
func observed(t *testing.T, base, path string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+path, nil)
	must(t, err)
	res, err := http.DefaultClient.Do(req)
	must(t, err)
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	must(t, err)
	return res.StatusCode, string(raw)
}

// TestRolesInProcessesOfTheirOwn: the API, two projectors and a worker in four processes do what one process does with all roles. An API
// process starts and answers although no other process runs.
func TestRolesInProcessesOfTheirOwn(t *testing.T) {
	s := newSite(t)
	for name, tc := range map[string]struct {
		roles, want string
	}{
		"unknown role": {"api,relay", `--roles (FACTUM_ROLES): "relay" is not a role; name one or more of api,projector,worker`},
		"no role":      {",", `"" is not a role; name one or more of api,projector,worker`},
	} {
		t.Run(name, func(t *testing.T) {
			p := launchFactum(t, append(s.serve(), "--roles="+tc.roles)...)
			if out := p.ended(t, 2); !strings.Contains(out, tc.want) {
				t.Fatal(out)
			}
		})
	}
	t.Run("an empty FACTUM_ROLES", func(t *testing.T) {
		t.Setenv("FACTUM_ROLES", "")
		p := launchFactum(t, s.serve()...)
		if out := p.ended(t, 2); !strings.Contains(out, "name one or more of api,projector,worker") {
			t.Fatal(out)
		}
	})

	api, at := s.start(t, "roles", "api")
	if out := api.said(); !strings.Contains(out, "roles api\n") {
		t.Errorf("the roles are not said: %s", out)
	}
	c := &demoClient{base: at.BaseURL}
	must(t, c.call(t.Context(), "GET", "/health", nil, nil))

	// A projector needs neither S3 nor an authority, a worker needs no S3.
	const nothing = ""
	noS3 := []string{"s3-endpoint", nothing, "s3-access-key", nothing, "s3-secret-key-file", nothing}
	noTSA := []string{"tsa-url", nothing, "tsa-roots", nothing}
	bare := append(append([]string{"roles", "projector"}, noS3...), noTSA...)
	projector, pAt := s.start(t, bare...)
	second, _ := s.start(t, bare...)
	c, tenant := tenantClient(t, at)
	up, err := uploadOne(t.Context(), at.BaseURL, c.token, tenant, 1)
	must(t, err)
	var view stampView
	must(t, c.call(t.Context(), "GET", "/api/tenants/"+tenant+"/files/"+up.file+"/timestamp", nil, &view))
	if view.Data.Stamp.Status != "pending" {
		t.Fatalf("without a worker the time-stamp is %s", view.Data.Stamp.Status)
	}
	worker, wAt := s.start(t, append([]string{"roles", "worker"}, noS3...)...)
	awaitStamped(t, c, tenant, up.file)

	for _, base := range []string{pAt.BaseURL, wAt.BaseURL} {
		if status, body := observed(t, base, "/health"); status != http.StatusOK || !strings.Contains(body, `"healthy"`) {
			t.Errorf("health: %d %s", status, body)
		}
		if status, body := observed(t, base, "/metrics"); status != http.StatusOK || !strings.Contains(body, "go_goroutines") {
			t.Errorf("metrics: %d %.200s", status, body)
		}
		for _, path := range []string{"/", "/api/docs/", "/api/users/me"} {
			if status, body := observed(t, base, path); status != http.StatusNotFound || !strings.Contains(body, "with the role api") {
				t.Errorf("%s: %d %s", path, status, body)
			}
		}
	}
	if _, body := observed(t, pAt.BaseURL, "/metrics"); !strings.Contains(body, "factum_projection_lag_events") || strings.Contains(body, "factum_jobs_ready") {
		t.Error("a projector shows its lag, and no jobs")
	}
	if _, body := observed(t, wAt.BaseURL, "/metrics"); !strings.Contains(body, "factum_jobs_ready") || strings.Contains(body, "factum_projection_lag_events") {
		t.Error("a worker shows its jobs, and no lag")
	}

	// The other projector goes on alone.
	if code := projector.kill(syscall.SIGKILL); code != -1 {
		t.Error(code)
	}
	up, err = uploadOne(t.Context(), at.BaseURL, c.token, tenant, 2)
	must(t, err)
	awaitStamped(t, c, tenant, up.file)
	for _, p := range []*running{worker, second, api} {
		begun := time.Now()
		if code := p.kill(syscall.SIGTERM); code != 0 || time.Since(begun) > stopTimeout {
			t.Errorf("factum %s: exit code %d after %s: %s", p.args, code, time.Since(begun), p.output)
		}
	}
}
