package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// stampDeadline bounds the wait for the time-stamp; the local authority needs well under a second.
const stampDeadline = 60 * time.Second

// DemoCmd runs the main job the way a person would and checks every claim on the way: Run answers nil only if all of them held.
type DemoCmd struct {
	Data string `default:".factum" help:"Data folder of the 'factum dev' to talk to; one is started on it, and stopped at the end, if none runs."`
	File string `default:"README.md" help:"File to have time-stamped, at most 100 MiB."`
	Out  string `default:"demo-out" help:"Folder for the downloaded file and its time-stamp. Made when absent."`
}

// Run implements the subcommand.
func (c DemoCmd) Run(ctx context.Context) error { return demo(ctx, os.Stdout, c) }

// demo runs the main job and narrates it on out.
func demo(ctx context.Context, out io.Writer, c DemoCmd) (err error) {
	original, err := os.ReadFile(c.File)
	if err != nil {
		return fmt.Errorf("demo: read the file to be time-stamped: %w; choose another with --file", err)
	}
	if len(original) == 0 {
		return fmt.Errorf("demo: %s is empty, and an empty file cannot be uploaded; choose another with --file", c.File)
	}
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		return errors.New("demo: the command openssl, which checks the time-stamp independently of Factum, is not installed; on Debian: apt-get install openssl")
	}
	info, stop, err := findOrStartDev(ctx, out, c.Data)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer func() { err = errors.Join(err, stop()) }()

	d := &demoRun{
		out: out, api: &demoClient{base: info.BaseURL}, openssl: openssl, roots: info.TSARoots,
		name: filepath.Base(c.File), original: original, folder: c.Out,
	}
	for _, step := range []struct {
		title string
		run   func(context.Context) error
	}{
		{"Register a new person", d.register},
		{"Log in", d.logIn},
		{"Create a tenant, with a database of its own", d.createTenant},
		{"Enable time-stamping", d.enableTimestamping},
		{"Upload " + c.File, d.upload},
		{"Wait for the time-stamp (RFC 3161)", d.awaitStamp},
		{"Download the file and its time-stamp", d.download},
		{"Let openssl check the time-stamp, without Factum", d.verify},
		{"Change one byte of a copy: the same check must fail", d.verifyTampered},
		{"Show how it all came to be: the audit trail", d.audit},
	} {
		d.step++
		fmt.Fprintf(out, "\n%2d. %s\n", d.step, step.title)
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("demo: step %d (%s): %w", d.step, step.title, err)
		}
	}
	fmt.Fprintf(out, "\nAll %d steps held. The proof is yours to keep; check it again at any time with:\n  %s\n", d.step,
		strings.Join(d.opensslCommand(d.filePath()), " "))
	return nil
}

// demoRun carries what one step learns to the next.
type demoRun struct {
	out      io.Writer
	api      *demoClient
	openssl  string
	roots    string // PEM file of the authority's roots
	folder   string // where downloads go
	name     string // of the file, without folder
	original []byte
	step     int

	email, password              string
	tenantID, documentID, fileID string
}

// say prints one indented line of the narration.
func (d *demoRun) say(format string, args ...any) {
	fmt.Fprintf(d.out, "    "+format+"\n", args...)
}

func (d *demoRun) register(ctx context.Context) error {
	tag := randomHex(4)
	// A letter and a digit are demanded of every password; random hex alone may lack either.
	d.email, d.password = "demo-"+tag+"@example.com", "a1"+randomHex(12)
	var reply struct {
		User struct {
			ID string `json:"id"`
		} `json:"user"`
	}
	err := d.api.call(ctx, http.MethodPost, "/api/auth/register", map[string]string{
		"first_name": "Dana", "last_name": "Demo", "email": d.email, "password": d.password,
	}, &reply)
	if err != nil {
		return err
	}
	d.say("e-mail    %s", d.email)
	d.say("password  %s (generated, 96 random bits)", strings.Repeat("*", len(d.password)))
	d.say("user      %s", reply.User.ID)
	return nil
}

func (d *demoRun) logIn(ctx context.Context) error {
	var reply struct {
		AccessToken string `json:"access_token"`
	}
	err := d.api.call(ctx, http.MethodPost, "/api/auth/login", map[string]string{"email": d.email, "password": d.password}, &reply)
	if err != nil {
		return err
	}
	if reply.AccessToken == "" {
		return errors.New("the answer holds no access_token")
	}
	d.api.token = reply.AccessToken
	d.say("got an access token (%d characters, not shown)", len(reply.AccessToken))
	return nil
}

func (d *demoRun) createTenant(ctx context.Context) error {
	var reply struct {
		Data struct {
			ID           string `json:"id"`
			Name         string `json:"name"`
			DatabaseName string `json:"database_name"`
			Role         string `json:"role"`
		} `json:"data"`
	}
	if err := d.api.call(ctx, http.MethodPost, "/api/tenants", map[string]string{"name": "Demo Works"}, &reply); err != nil {
		return err
	}
	d.tenantID = reply.Data.ID
	d.say("tenant    %s (%s)", reply.Data.Name, reply.Data.ID)
	d.say("database  %s", reply.Data.DatabaseName)
	d.say("our role  %s", reply.Data.Role)
	return nil
}

func (d *demoRun) enableTimestamping(ctx context.Context) error {
	var reply struct {
		Data struct {
			Enabled  bool   `json:"tsa_enabled"`
			Provider string `json:"tsa_provider"`
		} `json:"data"`
	}
	if err := d.api.call(ctx, http.MethodPut, d.tenantPath("tsa/enable"), nil, &reply); err != nil {
		return err
	}
	if !reply.Data.Enabled {
		return errors.New("the answer says that time-stamping is still off")
	}
	d.say("on, by the authority %q", reply.Data.Provider)
	return nil
}

func (d *demoRun) upload(ctx context.Context) error {
	var reply struct {
		Data struct {
			ID     string `json:"id"`
			FileID string `json:"file_id"`
			File   struct {
				Size int64 `json:"file_size"`
			} `json:"file"`
		} `json:"data"`
	}
	if err := d.api.upload(ctx, d.tenantPath("documents"), d.name, d.original, &reply); err != nil {
		return err
	}
	if got, want := reply.Data.File.Size, int64(len(d.original)); got != want {
		return fmt.Errorf("sent %d bytes, the answer says %d", want, got)
	}
	d.documentID, d.fileID = reply.Data.ID, reply.Data.FileID
	d.say("document  %s", d.documentID)
	d.say("file      %s, %d bytes", d.fileID, len(d.original))
	d.say("SHA-256   %s", hexSHA256(d.original))
	return nil
}

// awaitStamp asks four times a second until the time-stamp is there. A failed attempt is told, not given up on: Factum tries again.
func (d *demoRun) awaitStamp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stampDeadline)
	defer cancel()
	started := time.Now()
	last := ""
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		var reply struct {
			Data struct {
				Stamp struct {
					Status    string `json:"status"`
					GenTime   string `json:"gen_time"`
					Authority string `json:"tsa_authority"`
					Serial    string `json:"serial_number"`
					Error     string `json:"error_message"`
				} `json:"tsa_timestamp"`
			} `json:"data"`
		}
		err := d.api.call(ctx, http.MethodGet, d.tenantPath("files/"+d.fileID+"/timestamp"), nil, &reply)
		switch stamp := reply.Data.Stamp; {
		case ctx.Err() != nil:
			return fmt.Errorf("no time-stamp within %s; last status: %s", stampDeadline, orNone(last))
		case err != nil:
			return err
		case stamp.Status == "success":
			d.say("stamped after %.1f s", time.Since(started).Seconds())
			d.say("time      %s (the authority's clock)", stamp.GenTime)
			d.say("by        %s", stamp.Authority)
			d.say("serial    %s", stamp.Serial)
			return nil
		case stamp.Status+stamp.Error != last:
			last = stamp.Status + stamp.Error
			d.say("%s", strings.TrimSpace(stamp.Status+" "+stamp.Error))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("no time-stamp within %s; last status: %s", stampDeadline, orNone(last))
		}
	}
}

func (d *demoRun) download(ctx context.Context) error {
	if err := os.MkdirAll(d.folder, 0o755); err != nil {
		return fmt.Errorf("folder for the downloads: %w; choose another with --out", err)
	}
	content, err := d.api.fetch(ctx, d.tenantPath("documents/"+d.documentID+"/download"))
	if err != nil {
		return err
	}
	if !bytes.Equal(content, d.original) {
		return fmt.Errorf("the downloaded file differs from the original: SHA-256 %s, expected %s", hexSHA256(content), hexSHA256(d.original))
	}
	stamp, err := d.api.fetch(ctx, d.tenantPath("files/"+d.fileID+"/timestamp/download"))
	if err != nil {
		return err
	}
	if err := errors.Join(os.WriteFile(d.filePath(), content, 0o644), os.WriteFile(d.stampPath(), stamp, 0o644)); err != nil {
		return err
	}
	d.say("%s, %d bytes, identical to the original", d.filePath(), len(content))
	d.say("%s, %d bytes", d.stampPath(), len(stamp))
	return nil
}

func (d *demoRun) verify(ctx context.Context) error {
	verified, output, err := d.runOpenSSL(ctx, d.filePath())
	if err != nil {
		return err
	}
	if !verified {
		return fmt.Errorf("openssl rejects the time-stamp: %s", output)
	}
	return nil
}

func (d *demoRun) verifyTampered(ctx context.Context) error {
	changed := bytes.Clone(d.original)
	at := len(changed) / 2
	changed[at] ^= 1
	path := d.filePath() + ".changed"
	if err := os.WriteFile(path, changed, 0o644); err != nil {
		return err
	}
	d.say("byte %d is 0x%02x in place of 0x%02x", at, changed[at], d.original[at])
	verified, output, err := d.runOpenSSL(ctx, path)
	if err != nil {
		return err
	}
	if verified {
		return errors.New("openssl accepts a changed file: the time-stamp proves nothing")
	}
	if !strings.Contains(output, "message imprint mismatch") {
		return fmt.Errorf("openssl fails for another reason than the changed byte: %s", output)
	}
	d.say("as it should be: the time-stamp belongs to the original only")
	return nil
}

// runOpenSSL shows and runs the check of path against the downloaded time-stamp. err is set when openssl could not be run at all.
func (d *demoRun) runOpenSSL(ctx context.Context, path string) (verified bool, output string, err error) {
	args := d.opensslCommand(path)
	d.say("$ %s", strings.Join(args, " "))
	raw, err := exec.CommandContext(ctx, d.openssl, args[1:]...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return false, "", fmt.Errorf("run openssl: %w", err)
	}
	output = strings.TrimSpace(string(raw))
	for line := range strings.Lines(output) {
		if strings.HasPrefix(line, "Verification:") || strings.Contains(line, "mismatch") {
			d.say("%s", strings.TrimSpace(line))
		}
	}
	return err == nil && strings.Contains(output, "Verification: OK"), output, nil
}

func (d *demoRun) opensslCommand(path string) []string {
	return []string{"openssl", "ts", "-verify", "-data", path, "-in", d.stampPath(), "-CAfile", d.roots}
}

// auditEntry is one line of the audit trail.
type auditEntry struct {
	Position uint64    `json:"position"`
	At       time.Time `json:"at"`
	Actor    string    `json:"actor"`
	Type     string    `json:"type"`
	Stream   string    `json:"stream"`
	Summary  string    `json:"summary"`
}

// audit shows the trail. It is a read model of its own and may follow the time-stamp's by a moment, so it is asked again until
// the last fact of the story is in it.
func (d *demoRun) audit(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var entries []auditEntry
	var missing []string
	for {
		var reply struct {
			Data struct {
				Entries []auditEntry `json:"entries"`
			} `json:"data"`
		}
		if err := d.api.call(ctx, http.MethodGet, d.tenantPath("audit"), nil, &reply); err != nil {
			return err
		}
		entries = reply.Data.Entries
		missing = missing[:0]
		for _, want := range []string{"timestamping.enabled", "file.stored", "document.uploaded", "file.timestamp_requested", "file.timestamped"} {
			if !slices.ContainsFunc(entries, func(e auditEntry) bool { return e.Type == want }) {
				missing = append(missing, want)
			}
		}
		if len(missing) == 0 {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the audit trail lacks %s", strings.Join(missing, ", "))
		}
	}
	slices.SortFunc(entries, func(a, b auditEntry) int { return int(a.Position) - int(b.Position) })
	table := tabwriter.NewWriter(d.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "    #\ttime (UTC)\tactor\twhat\tsummary")
	for _, e := range entries {
		fmt.Fprintf(table, "    %d\t%s\t%s\t%s\t%s\n", e.Position, e.At.UTC().Format("15:04:05.000"), short(e.Actor), e.Type, e.Summary)
	}
	return table.Flush()
}

func (d *demoRun) tenantPath(rest string) string { return "/api/tenants/" + d.tenantID + "/" + rest }
func (d *demoRun) filePath() string              { return filepath.Join(d.folder, d.name) }
func (d *demoRun) stampPath() string             { return d.filePath() + ".tsr" }

// short cuts a UUID to its first group, which is enough to tell the few actors of the demo apart.
func short(actor string) string {
	first, _, _ := strings.Cut(actor, "-")
	return first
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func hexSHA256(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails: crypto/rand aborts the process instead (Go 1.24)
	return hex.EncodeToString(b)
}
