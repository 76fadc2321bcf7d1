package clientaddr

import (
	"net/netip"
	"testing"
)

func TestTheClientIsTheRightmostAddressThatIsNoProxy(t *testing.T) {
	networks, err := Parse([]string{"10.0.0.0/8", " 192.0.2.7 ", "fd00::/8", ""})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		header, peer string
		lines        []string
		want         string
	}{
		"a stranger is not believed":           {XForwardedFor, "203.0.113.9", []string{"198.51.100.1"}, "203.0.113.9"},
		"one proxy":                            {XForwardedFor, "10.1.2.3", []string{"198.51.100.1"}, "198.51.100.1"},
		"the client's invention is left of it": {XForwardedFor, "10.1.2.3", []string{"127.0.0.1, 10.9.9.9, 198.51.100.1"}, "198.51.100.1"},
		"two proxies":                          {XForwardedFor, "10.1.2.3", []string{"198.51.100.1, 192.0.2.7"}, "198.51.100.1"},
		"two lines":                            {XForwardedFor, "10.1.2.3", []string{"8.8.8.8", "198.51.100.1, 192.0.2.7"}, "198.51.100.1"},
		"no header":                            {XForwardedFor, "10.1.2.3", nil, "10.1.2.3"},
		"nonsense behind a proxy":              {XForwardedFor, "10.1.2.3", []string{"198.51.100.1, unknown, 192.0.2.7"}, "192.0.2.7"},
		"an IPv4 address as IPv6":              {XForwardedFor, "::ffff:10.1.2.3", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		"IPv6 and a port":                      {XForwardedFor, "fd00::1", []string{"[2001:db8::5]:4711"}, "2001:db8::5"},
		"an IPv4 address and a port":           {XForwardedFor, "fd00::1", []string{"198.51.100.1:80"}, "198.51.100.1"},
		"all are proxies":                      {XForwardedFor, "10.1.2.3", []string{"10.0.0.1, 10.0.0.2"}, "10.0.0.1"},
		"RFC 7239":                             {Forwarded, "10.1.2.3", []string{`for=8.8.8.8, for=198.51.100.1;proto=https;by=10.0.0.1, For="[fd00::7]:99"`}, "198.51.100.1"},
		"RFC 7239, hidden":                     {Forwarded, "10.1.2.3", []string{`for=_hidden`}, "10.1.2.3"},
		"RFC 7239, without a node":             {Forwarded, "10.1.2.3", []string{`for=8.8.8.8, proto=https`}, "10.1.2.3"},
	} {
		t.Run(name, func(t *testing.T) {
			got := Proxies{networks, c.header}.Of(netip.MustParseAddr(c.peer), c.lines)
			if got.String() != c.want {
				t.Errorf("%s; want %s", got, c.want)
			}
		})
	}
	if _, err := Parse([]string{"10.0.0.0/33"}); err == nil {
		t.Error("a network with 33 bits was accepted")
	}
}

func TestACustomersNetwork(t *testing.T) {
	for in, want := range map[string]string{
		"198.51.100.1": "198.51.100.1/32", "::ffff:198.51.100.1": "198.51.100.1/32", "2001:db8:1:2:3::4": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64",
	} {
		if got, ok := Network(in); !ok || got.String() != want {
			t.Errorf("%s: %s, %v; want %s", in, got, ok, want)
		}
	}
	if _, ok := Network("@"); ok {
		t.Error("@ is an address")
	}
}
