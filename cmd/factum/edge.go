package main

import (
	"fmt"
	"net/url"
	"time"

	"github.com/factum-platform/factum/infra/clientaddr"
	"github.com/factum-platform/factum/infra/httpapi"
	"github.com/factum-platform/factum/infra/ratelimit"
)

// edgeSettings say how the API meets those who call it.
type edgeSettings struct {
	LimitAddress ratelimit.Quota `name:"limit-address" env:"FACTUM_LIMIT_ADDRESS" default:"3000/1m" placeholder:"N/TIME" help:"Requests that are admitted from one network address (of IPv6, one /64) in a time; off for all (${env})."`
	LimitUser    ratelimit.Quota `name:"limit-user" env:"FACTUM_LIMIT_USER" default:"1200/1m" placeholder:"N/TIME" help:"The same, of one user or API key (${env})."`
	LimitTenant  ratelimit.Quota `name:"limit-tenant" env:"FACTUM_LIMIT_TENANT" default:"12000/1m" placeholder:"N/TIME" help:"The same, in one tenant (${env})."`

	TrustedProxies []string `name:"trusted-proxies" env:"FACTUM_TRUSTED_PROXIES" placeholder:"NETWORK,…" help:"Proxies, as networks or addresses, whose word on the client's address is taken (${env}). None if it is not set."`
	ProxyHeader    string   `name:"proxy-header" env:"FACTUM_PROXY_HEADER" default:"X-Forwarded-For" enum:"X-Forwarded-For,Forwarded" help:"The header in which they name it: ${enum} (${env})."`
	CORSOrigins    []string `name:"cors-origins" env:"FACTUM_CORS_ORIGINS" placeholder:"ORIGIN,…" help:"Web pages that may call the API from a browser, as https://app.example (${env}). None but its own if it is not set."`
}

// edge is what they come to.
type edge struct {
	limits  httpapi.Limits
	proxies clientaddr.Proxies
	origins []string
	tls     bool // people reach the API by https
}

// generous are the limits of a system that one developer uses.
var generous = httpapi.Limits{
	Address: ratelimit.Quota{Requests: 600_000, Window: time.Minute}, User: ratelimit.Quota{Requests: 600_000, Window: time.Minute},
	Tenant: ratelimit.Quota{Requests: 600_000, Window: time.Minute},
}

func (c edgeSettings) edge() (edge, error) {
	networks, err := clientaddr.Parse(c.TrustedProxies)
	if err != nil {
		return edge{}, fmt.Errorf("--trusted-proxies (FACTUM_TRUSTED_PROXIES): %w", err)
	}
	for _, origin := range c.CORSOrigins {
		u, err := url.Parse(origin)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.Scheme+"://"+u.Host != origin {
			return edge{}, fmt.Errorf("--cors-origins (FACTUM_CORS_ORIGINS): %q is not an origin such as https://app.example", origin)
		}
	}
	return edge{
		limits:  httpapi.Limits{Address: c.LimitAddress, User: c.LimitUser, Tenant: c.LimitTenant},
		proxies: clientaddr.Proxies{Networks: networks, Header: c.ProxyHeader}, origins: c.CORSOrigins,
	}, nil
}
