package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mainJob cuts the block out of the README that shows the main job.
func mainJob(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile("../../README.md")
	must(t, err)
	_, rest, marked := strings.Cut(string(raw), "<!-- main-job:")
	_, rest, fenced := strings.Cut(rest, "\n```bash\n")
	block, _, closed := strings.Cut(rest, "\n```\n")
	if !marked || !fenced || !closed {
		t.Fatal("README.md has no block marked main-job")
	}
	return block
}

// TestReadmeMainJob runs the README's block as it stands, in a folder that has a LICENSE and a running 'factum dev' on .factum.
func TestReadmeMainJob(t *testing.T) {
	block := mainJob(t)
	commands := 0
	for line := range strings.Lines(block) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			commands++
		}
	}
	if commands == 0 || commands >= 20 {
		t.Errorf("the main job takes %d lines; the README promises fewer than 20", commands)
	}

	folder := t.TempDir()
	license, err := os.ReadFile("../../LICENSE")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(folder, "LICENSE"), license, 0o600))
	startDevOn(t, filepath.Join(folder, ".factum"))

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	// -e and pipefail only make the test notice what a person would see: a line that fails.
	script := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", block)
	script.Dir = folder
	out, err := script.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"Verification: OK", "timestamping.enabled", "file.stored", "document.uploaded", "file.timestamped"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
}

// TestDemo runs the demo as make demo does: without a running Factum it starts one, with one it uses that.
func TestDemo(t *testing.T) {
	data, downloads := filepath.Join(t.TempDir(), "data"), t.TempDir()
	args := []string{"demo", "--data", data, "--file", "../../LICENSE", "--out", downloads}
	t.Run("starts a Factum and stops it", func(t *testing.T) {
		p := startFactum(t, "All 10 steps held", args...)
		p.wait(t, "starting one for this demo")
		if left := leftRunning(t, data); left != "" {
			t.Errorf("still running: %s", left)
		}
	})
	t.Run("uses the one that runs", func(t *testing.T) {
		_, info := startDevOn(t, data)
		p := startFactum(t, "All 10 steps held", args...)
		p.wait(t, "runs at "+info.BaseURL)
		client := &demoClient{base: info.BaseURL}
		must(t, client.call(t.Context(), "GET", "/health", nil, nil)) // the demo did not stop it
	})
	original, err := os.ReadFile("../../LICENSE")
	must(t, err)
	got, err := os.ReadFile(filepath.Join(downloads, "LICENSE"))
	if err != nil || string(got) != string(original) {
		t.Errorf("the download differs: %v", err)
	}
	t.Run("an authority that others do not trust fails it", func(t *testing.T) {
		foreign := filepath.Join(t.TempDir(), "roots.pem")
		key := filepath.Join(t.TempDir(), "key.pem")
		out, err := exec.CommandContext(t.Context(), "openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=somebody else", "-keyout", key, "-out", foreign).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		d := &demoRun{out: t.Output(), openssl: "openssl", roots: foreign, folder: downloads, name: "LICENSE", original: original}
		if err := d.verify(t.Context()); err == nil || !strings.Contains(err.Error(), "rejects") {
			t.Errorf("a foreign root was accepted: %v", err)
		}
	})
}

// wait waits for the end of a factum that ends by itself, well, and has said the words.
func (p *running) wait(t *testing.T, words string) {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		t.Fatalf("it does not end: %s", p.output)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, p.output)
	}
	if !strings.Contains(p.said(), words) {
		t.Errorf("it does not say %q: %s", words, p.output)
	}
}
