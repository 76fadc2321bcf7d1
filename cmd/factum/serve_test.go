package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/infra/devstack"
	"github.com/factum-platform/factum/infra/keyring"
)

// elsewhere are the servers that all platforms of the tests share. A platform has a PostgreSQL of its own, because names of roles are the
// cluster's, and a bucket of its own.
var elsewhere outside

type outside struct {
	once sync.Once
	err  error
	dir  string
	s3   *devstack.S3
	tsa  *devstack.TSA
}

const (
	testAccessKey = "factum-test"
	testSecretKey = "factum-test-secret"
)

func (o *outside) start(ctx context.Context) error {
	o.once.Do(func() {
		if o.dir, o.err = os.MkdirTemp("", "factum-elsewhere-"); o.err != nil {
			return
		}
		if o.s3, o.err = devstack.StartS3(ctx, devstack.S3Config{Dir: filepath.Join(o.dir, "s3"), AccessKey: testAccessKey, SecretKey: testSecretKey}); o.err != nil {
			return
		}
		o.tsa, o.err = devstack.StartTSA(ctx, devstack.TSAConfig{Dir: filepath.Join(o.dir, "tsa"), Listen: "127.0.0.1:0"})
	})
	return o.err
}

func (o *outside) stop() error {
	var errs []error
	if o.tsa != nil {
		errs = append(errs, o.tsa.Stop(context.Background()))
	}
	if o.s3 != nil {
		errs = append(errs, o.s3.Stop(context.Background()))
	}
	if o.dir != "" {
		errs = append(errs, os.RemoveAll(o.dir))
	}
	return errors.Join(errs...)
}

// site is what an operator has before factum serve: servers and settings.
type site struct {
	t     *testing.T
	dsn   string            // of the cluster's administrator
	flags map[string]string // of factum serve, by name
}

func newSite(t *testing.T) *site {
	t.Helper()
	must(t, elsewhere.start(context.Background()))
	dir := t.TempDir()
	pg, err := devstack.StartPostgres(t.Context(), devstack.PostgresConfig{Dir: filepath.Join(dir, "postgres")})
	must(t, err)
	t.Cleanup(func() { must(t, pg.Stop(context.Background())) })
	secret := filepath.Join(dir, "s3-secret")
	must(t, os.WriteFile(secret, []byte(testSecretKey+"\n"), 0o600))
	return &site{t: t, dsn: pg.AdminDSN(), flags: map[string]string{
		"listen": "127.0.0.1:0", "database-url": pg.AdminDSN(), "keyring": filepath.Join(dir, "keyring.json"), "event-store": enginePostgres,
		"s3-endpoint": "http://" + elsewhere.s3.Endpoint(), "s3-access-key": testAccessKey, "s3-secret-key-file": secret,
		"limit-address": "off", "limit-user": "off", "limit-tenant": "off", // every client of a test is this machine
		"s3-bucket": strings.ToLower(bucketOf(t)), "tsa-url": elsewhere.tsa.URL(), "tsa-roots": elsewhere.tsa.RootsPath(), "log-format": "text",
	}}
}

// bucketOf is a name for a bucket that no other test has.
func bucketOf(t *testing.T) string {
	return "b" + strings.Map(func(r rune) rune {
		if r == '/' || r == '_' {
			return '-'
		}
		return r
	}, t.Name())
}

// serve are the arguments of factum serve; changes are pairs of a flag's name and its value, "" to leave it out.
func (s *site) serve(changes ...string) []string { return s.args("serve", s.flags, changes) }

// logCopy are the arguments of factum log copy.
func (s *site) logCopy(from, to string, more ...string) []string {
	settings := map[string]string{"from": from, "to": to}
	for _, name := range []string{"database-url", "keyring", "esdb", "log-format"} {
		if value := s.flags[name]; value != "" {
			settings[name] = value
		}
	}
	return append(s.args("log", settings, nil), more...)
}

func (s *site) args(command string, settings map[string]string, changes []string) []string {
	all := map[string]string{}
	for name, value := range settings {
		all[name] = value
	}
	for pair := range slices.Chunk(changes, 2) {
		all[pair[0]] = pair[1]
	}
	out := []string{command}
	if command == "log" {
		out = append(out, "copy")
	}
	for name, value := range all {
		if value != "" {
			out = append(out, "--"+name+"="+value)
		}
	}
	return out
}

// start starts factum serve and returns where it is.
func (s *site) start(t *testing.T, changes ...string) (*running, devInfo) {
	t.Helper()
	p := launchFactum(t, s.serve(changes...)...)
	return p, p.ready()
}

// ready waits until a factum serve says where it is.
func (p *running) ready() devInfo {
	p.t.Helper()
	p.await(p.told("ready http://"))
	_, rest, _ := strings.Cut(p.said(), "ready ")
	base, _, _ := strings.Cut(rest, " ")
	return devInfo{BaseURL: base}
}

// ended waits for the end of a factum that ends by itself, and returns its output.
func (p *running) ended(t *testing.T, code int) string {
	t.Helper()
	<-p.done
	if got := p.kill(syscall.SIGTERM); got != code {
		t.Fatalf("factum %s: exit code %d, want %d: %s", p.args, got, code, p.output)
	}
	return p.said()
}

type auditTrail struct {
	Data struct {
		Entries []struct {
			Type   string `json:"type"`
			Stream string `json:"stream"`
		} `json:"entries"`
	} `json:"data"`
}

// stampsOf counts the time-stamps of each file in the audit trail, of at most 100 entries.
func stampsOf(t *testing.T, c *demoClient, tenant string) map[string]int {
	t.Helper()
	var trail auditTrail
	must(t, c.call(t.Context(), "GET", "/api/tenants/"+tenant+"/audit?per_page=100", nil, &trail))
	out := map[string]int{}
	for _, e := range trail.Data.Entries {
		if e.Type == "file.timestamped" {
			out[e.Stream]++
		}
	}
	return out
}

// TestServe: two processes are started at once on empty servers, work on one platform, and one of them ends in the middle of an upload.
func TestServe(t *testing.T) {
	s := newSite(t)
	first, second := launchFactum(t, s.serve()...), launchFactum(t, s.serve()...)
	at := [2]string{first.ready().BaseURL, second.ready().BaseURL}
	c, tenant := tenantClient(t, devInfo{BaseURL: at[0]})

	const uploads = 16
	var wg sync.WaitGroup
	acked := make([]acknowledged, uploads)
	for n := range acked {
		wg.Go(func() {
			var err error
			if acked[n], err = uploadOne(t.Context(), at[n%2], c.token, tenant, n); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for n, up := range acked {
		c.base = at[(n+1)%2] // the one that did not take it
		awaitStamped(t, c, tenant, up.file)
		got, err := c.fetch(t.Context(), "/api/tenants/"+tenant+"/documents/"+up.document+"/download")
		if err != nil || !bytes.Equal(got, up.content) {
			t.Fatalf("document %s came back changed: %v", up.document, err)
		}
	}
	stamps := stampsOf(t, c, tenant)
	for file, n := range stamps {
		if n != 1 {
			t.Errorf("%s was time-stamped %d times", file, n)
		}
	}
	if len(stamps) != uploads {
		t.Errorf("%d files were time-stamped; want %d", len(stamps), uploads)
	}

	t.Run("a tenant is made while another process starts", func(t *testing.T) {
		third := launchFactum(t, s.serve()...)
		for range 3 {
			tenantClient(t, devInfo{BaseURL: at[0]})
		}
		third.ready()
		if code := third.kill(syscall.SIGINT); code != 0 {
			t.Fatal(code, third.output)
		}
	})
	t.Run("a running upload is finished before the end", func(t *testing.T) {
		c.base = at[0]
		finish, answer := slowUpload(t, c, tenant)
		must(t, first.cmd.Process.Signal(syscall.SIGTERM))
		first.await(first.told("stopping"))
		finish()
		if status := <-answer; status != http.StatusCreated {
			t.Errorf("the upload was answered with %d", status)
		}
		<-first.done
		if code := first.kill(syscall.SIGTERM); code != 0 {
			t.Errorf("exit code %d: %s", code, first.output)
		}
		c.base = at[1]
		var list struct {
			Data struct {
				Documents []struct{} `json:"documents"`
			} `json:"data"`
		}
		must(t, c.call(t.Context(), "GET", "/api/tenants/"+tenant+"/documents?per_page=100", nil, &list))
		if len(list.Data.Documents) != uploads+1 {
			t.Errorf("%d documents; want %d", len(list.Data.Documents), uploads+1)
		}
	})
	t.Run("a log that is served is not copied", func(t *testing.T) {
		out := refusedStart(t, s.logCopy(enginePostgres, enginePostgres, "--all", "--switch")...)
		if !strings.Contains(out, "works on these logs; stop it") {
			t.Fatal(out)
		}
	})
	t.Run("the password of the application's role is sealed and the administrator's", func(t *testing.T) {
		conn, err := pgx.Connect(t.Context(), s.platform())
		must(t, err)
		defer conn.Close(context.Background())
		var allowed bool
		must(t, conn.QueryRow(t.Context(), `select has_table_privilege('factum_api', 'placement.logins', 'select')`).Scan(&allowed))
		if allowed {
			t.Error("the application reads its own sealed password")
		}
	})
	t.Run("a log that was moved ends who still serves the old one", func(t *testing.T) {
		// As if the lock had been lost with its connection, and the log moved before it was taken again.
		conn, err := pgx.Connect(t.Context(), s.platform())
		must(t, err)
		defer conn.Close(context.Background())
		_, err = conn.Exec(t.Context(), `update placement.log set engine = 'eventstoredb';
			select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and mode = 'ShareLock' and pid <> pg_backend_pid()`)
		must(t, err)
		if out := second.ended(t, 1); !strings.Contains(out, "lie in eventstoredb") {
			t.Error(out)
		}
	})
}

// platform is the administrator's DSN of the platform's database.
func (s *site) platform() string {
	s.t.Helper()
	dsn, err := platformURL(s.dsn, nil)
	must(s.t, err)
	return dsn
}

// slowUpload begins an upload. finish sends the rest, answer gets the status, 0 for none.
func slowUpload(t *testing.T, c *demoClient, tenant string) (finish func(), answer <-chan int) {
	t.Helper()
	body, pipe := io.Pipe()
	form := multipart.NewWriter(pipe)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.base+"/api/tenants/"+tenant+"/documents", body)
	must(t, err)
	req.Header.Set("Content-Type", form.FormDataContentType())
	req.Header.Set("Authorization", "Bearer "+c.token)
	got := make(chan int, 1)
	go func() {
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Error("upload:", err)
			got <- 0
			return
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Error(err)
		}
		must(t, res.Body.Close())
		got <- res.StatusCode
	}()
	must(t, form.WriteField("mime_type", "text/plain"))
	part, err := form.CreateFormFile("file", "slow.txt")
	must(t, err)
	_, err = part.Write(bytes.Repeat([]byte("a line\n"), 100_000)) // more than buffers hold: the server has begun
	must(t, err)
	return func() {
		_, err := part.Write([]byte("the last line\n"))
		must(t, errors.Join(err, form.Close(), pipe.Close()))
	}, got
}

func TestServeSaysWhatToDo(t *testing.T) {
	s := newSite(t)
	p, info := s.start(t)
	tenantClient(t, info) // so that there is a log
	if code := p.kill(syscall.SIGTERM); code != 0 {
		t.Fatal(code, p.output)
	}
	taken, file, nowhere := strings.TrimPrefix(elsewhere.tsa.URL(), "http://"), filepath.Join(t.TempDir(), "file"), filepath.Join(t.TempDir(), "a", "b")
	must(t, os.WriteFile(file, []byte("no PEM"), 0o600))
	wrong, err := url.Parse(s.dsn)
	must(t, err)
	wrong.User = url.UserPassword("postgres", "not-the-password")
	for name, tc := range map[string]struct {
		change []string
		want   string
	}{
		"no database":           {[]string{"database-url", ""}, "FACTUM_DATABASE_URL is not set: give the URL of a PostgreSQL role"},
		"no keyring":            {[]string{"keyring", ""}, "FACTUM_KEYRING is not set"},
		"no S3":                 {[]string{"s3-endpoint", ""}, "FACTUM_S3_ENDPOINT is not set"},
		"no S3 access key":      {[]string{"s3-access-key", ""}, "FACTUM_S3_ACCESS_KEY is not set"},
		"no S3 secret":          {[]string{"s3-secret-key-file", ""}, "FACTUM_S3_SECRET_KEY is not set"},
		"no TSA":                {[]string{"tsa-url", ""}, "FACTUM_TSA_URL is not set"},
		"no roots":              {[]string{"tsa-roots", ""}, "FACTUM_TSA_ROOTS is not set"},
		"no EventStoreDB":       {[]string{"event-store", engineEventStoreDB}, "ESDB_CONNECTION_STRING is not set"},
		"database is no URL":    {[]string{"database-url", "host=127.0.0.1"}, "FACTUM_DATABASE_URL): the PostgreSQL DSN is not a URL"},
		"database is away":      {[]string{"database-url", "postgres://postgres@127.0.0.1:1/postgres"}, "check --database-url (FACTUM_DATABASE_URL)"},
		"wrong password":        {[]string{"database-url", wrong.String()}, "check --database-url (FACTUM_DATABASE_URL)"},
		"S3 is no URL":          {[]string{"s3-endpoint", "127.0.0.1:9000"}, "FACTUM_S3_ENDPOINT) \"127.0.0.1:9000\" is not a URL such as https://host:port"},
		"the outside of S3":     {[]string{"s3-public-url", "https://files.example/path"}, "FACTUM_S3_PUBLIC_URL) \"https://files.example/path\" is not a URL such as https://host:port"},
		"S3 is away":            {[]string{"s3-endpoint", "http://127.0.0.1:1"}, "see --s3-endpoint (FACTUM_S3_ENDPOINT)"},
		"wrong S3 access key":   {[]string{"s3-access-key", "mallory"}, "--s3-access-key (FACTUM_S3_ACCESS_KEY)"},
		"S3 secret in no file":  {[]string{"s3-secret-key-file", nowhere}, "FACTUM_S3_SECRET_KEY_FILE) cannot be read"},
		"TSA is no URL":         {[]string{"tsa-url", "authority"}, "--tsa-url (FACTUM_TSA_URL)"},
		"roots in no file":      {[]string{"tsa-roots", nowhere}, "--tsa-roots (FACTUM_TSA_ROOTS): there is no file"},
		"roots are no PEM":      {[]string{"tsa-roots", file}, "--tsa-roots (FACTUM_TSA_ROOTS)"},
		"keyring was lost":      {[]string{"keyring", nowhere}, "does not exist, but database factum holds keys that are sealed under one"},
		"keyring is no keyring": {[]string{"keyring", file}, "is not a tink keyset"},
		"port taken":            {[]string{"listen", taken}, "choose another address with --listen"},
		"another engine":        {[]string{"event-store", engineEventStoreDB, "esdb", "esdb://127.0.0.1:1?tls=false"}, "factum log copy --from postgres --to eventstoredb --all --switch"},
	} {
		t.Run(name, func(t *testing.T) {
			out := refusedStart(t, s.serve(tc.change...)...)
			if !strings.Contains(out, tc.want) || strings.Contains(out, "not-the-password") {
				t.Fatal(out)
			}
		})
	}
	t.Run("another keyring", func(t *testing.T) {
		other := newKeyring(t)
		if out := refusedStart(t, s.serve("keyring", other)...); !strings.Contains(out, "the key-encryption key is not the one that sealed it") || !strings.Contains(out, "FACTUM_KEYRING") {
			t.Fatal(out)
		}
	})
	t.Run("an authority that is away is only logged", func(t *testing.T) {
		p, info := s.start(t, "tsa-url", "http://127.0.0.1:1/")
		must(t, (&demoClient{base: info.BaseURL}).call(t.Context(), "GET", "/health", nil, nil))
		if code := p.kill(syscall.SIGTERM); code != 0 || !strings.Contains(p.output.String(), "FACTUM_TSA_URL") {
			t.Fatal(code, p.output)
		}
	})
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"neither all nor a tenant": {s.logCopy(enginePostgres, engineEventStoreDB, "--esdb=x"), "either --all or one or more --tenant"},
		"the same engine":          {s.logCopy(enginePostgres, enginePostgres, "--all"), "--from and --to name the same engine"},
		"a switch of no move":      {s.logCopy(enginePostgres, enginePostgres, "--all", "--switch"), "--from and --to name the same engine"},
		"a switch of one tenant":   {s.logCopy(enginePostgres, engineEventStoreDB, "--tenant=platform", "--switch"), "--switch needs --all"},
		"no server":                {s.logCopy(enginePostgres, engineEventStoreDB, "--all"), "ESDB_CONNECTION_STRING is not set"},
		"the wrong source":         {s.logCopy(engineEventStoreDB, enginePostgres, "--all", "--esdb=esdb://127.0.0.1:1?tls=false"), "lie in postgres, so --from must name that"},
	} {
		t.Run("log copy: "+name, func(t *testing.T) {
			if out := refusedStart(t, tc.args...); !strings.Contains(out, tc.want) {
				t.Fatal(out)
			}
		})
	}
}

// newKeyring makes a key file that no platform has used.
func newKeyring(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keyring.json")
	_, err := keyring.LoadOrCreateKEK(path)
	must(t, err)
	return path
}
