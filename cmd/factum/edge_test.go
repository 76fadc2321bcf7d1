package main

import (
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/factum-platform/factum/infra/clientaddr"
	"github.com/factum-platform/factum/infra/ratelimit"
)

func TestTheEdgeIsReadFromItsSettings(t *testing.T) {
	read := func(args ...string) (edge, error) {
		var c cli
		parser, err := kong.New(&c)
		must(t, err)
		if _, err := parser.Parse(append([]string{"serve"}, args...)); err != nil {
			return edge{}, err
		}
		return c.Serve.edge()
	}
	e, err := read()
	if err != nil || e.limits.User != (ratelimit.Quota{Requests: 1200, Window: time.Minute}) || e.limits.Address.Off() || e.limits.Tenant.Off() ||
		len(e.proxies.Networks) > 0 || len(e.origins) > 0 {
		t.Errorf("the defaults: %+v, %v", e, err)
	}
	e, err = read("--limit-user", "off", "--limit-address", "5/10s", "--trusted-proxies", "10.0.0.0/8,192.0.2.1", "--proxy-header", "Forwarded", "--cors-origins", "https://app.example")
	if err != nil || !e.limits.User.Off() || e.limits.Address != (ratelimit.Quota{Requests: 5, Window: 10 * time.Second}) ||
		len(e.proxies.Networks) != 2 || e.proxies.Header != clientaddr.Forwarded || e.origins[0] != "https://app.example" {
		t.Errorf("%+v, %v", e, err)
	}
	for _, args := range [][]string{
		{"--limit-user", "5"}, {"--trusted-proxies", "10.0.0.0/99"}, {"--proxy-header", "X-Real-IP"}, {"--cors-origins", "app.example"}, {"--cors-origins", "https://app.example/page"},
	} {
		if _, err := read(args...); err == nil || !strings.Contains(err.Error(), args[0]) {
			t.Errorf("%s: %v", strings.Join(args, " "), err)
		}
	}
}
