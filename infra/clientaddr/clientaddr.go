// Package clientaddr finds out which network address a request comes from, behind proxies that are known and behind others.
package clientaddr

import (
	"fmt"
	"net/netip"
	"strings"
)

// The headers in which proxies name whom they speak for. A proxy must set the one that is believed; what clients write into the other
// is not looked at.
const (
	XForwardedFor = "X-Forwarded-For"
	Forwarded     = "Forwarded" // RFC 7239
)

// Proxies are the proxies whose word is taken, as networks, and the header that they write. The zero value trusts nobody.
type Proxies struct {
	Networks []netip.Prefix
	Header   string // [XForwardedFor] or [Forwarded]; "" means the first
}

// Parse reads networks (10.0.0.0/8, fd00::/8) and single addresses.
func Parse(networks []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range networks {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		network, err := netip.ParsePrefix(text)
		if err != nil {
			var single netip.Addr
			if single, err = netip.ParseAddr(text); err == nil {
				network = netip.PrefixFrom(single, single.BitLen())
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%q is neither a network such as 10.0.0.0/8 nor an address", text)
		}
		out = append(out, network.Masked())
	}
	return out, nil
}

// Of is the client's address: that of the connection's other end or, when that is a trusted proxy, the rightmost address in the header that is
// none. Where an entry cannot be read, the address of the proxy that wrote it is answered: what is further left is anybody's invention.
// lines are the header's values, one for each time that it occurs.
func (p Proxies) Of(peer netip.Addr, lines []string) netip.Addr {
	peer = plain(peer)
	if !p.trusts(peer) {
		return peer
	}
	hops := strings.Split(strings.Join(lines, ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		next, ok := p.hop(hops[i])
		if !ok {
			return peer
		}
		if peer = next; !p.trusts(peer) {
			return peer
		}
	}
	return peer
}

func (p Proxies) trusts(a netip.Addr) bool {
	for _, network := range p.Networks {
		if network.Contains(a) {
			return true
		}
	}
	return false
}

// hop reads one entry of the header.
func (p Proxies) hop(text string) (netip.Addr, bool) {
	text = strings.TrimSpace(text)
	if p.Header == Forwarded {
		node, ok := node(text)
		if !ok {
			return netip.Addr{}, false
		}
		text = node
	}
	if a, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return plain(a), true
	}
	withPort, err := netip.ParseAddrPort(text)
	return plain(withPort.Addr()), err == nil
}

// node is the parameter "for" of one forwarded-element (RFC 7239 §4).
func node(element string) (string, bool) {
	for _, pair := range strings.Split(element, ";") {
		name, value, ok := strings.Cut(strings.TrimSpace(pair), "=")
		if ok && strings.EqualFold(name, "for") {
			return strings.Trim(value, `"`), true
		}
	}
	return "", false
}

func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// Network is what one customer of a network provider has for itself: an IPv4 address, or the /64 around an IPv6 address. ok is false for
// what is no address.
func Network(address string) (network netip.Prefix, ok bool) {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Prefix{}, false
	}
	bits := 64
	if a = plain(a); a.Is4() {
		bits = 32
	}
	network, err = a.Prefix(bits)
	return network, err == nil
}
