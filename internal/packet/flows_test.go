//go:build linux

package packet

import (
	"net/netip"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// A client's older connection goes where it went before; one that is new goes by the rules of now.
func TestAnOlderConnectionDecides(t *testing.T) {
	addrPort := netip.MustParseAddrPort
	for _, test := range []struct {
		what  string
		reply string // where the entry has it sent
		sport uint16 // the client's; 0: not said
		kind  Kind
	}{
		{"of nobody knows which port", "172.19.0.99:80", 0, ""},
		{"of another port", "172.19.0.99:80", 40001, ""},
		{"to an address of before", "172.19.0.99:80", 40000, Diverted},
		{"to the host itself", "203.0.113.10:8080", 40000, Diverted},
	} {
		s := healthy(t, "28.5.2-noproxy")
		target := web(t, s)
		target.Client, target.SPort, target.Iface = netip.MustParseAddr("203.0.113.200"), test.sport, "ext0"
		host := s.Host.Addrs[0].Prefix.Addr()
		for _, a := range s.Host.Addrs {
			if a.Link == "ext0" && a.Prefix.Addr().Is4() {
				host = a.Prefix.Addr()
			}
		}
		reply := addrPort(test.reply)
		if reply.Port() == 8080 {
			reply = netip.AddrPortFrom(host, 8080)
		}
		s.Host.Flows = []netstate.Flow{{Family: netstate.IPv4, Proto: "tcp", State: "ESTABLISHED", Status: ipsSeenReply | ipsConfirmed | ipsSrcNATDone | ipsDstNATDone | ipsDstNAT,
			Original: netstate.Tuple{Src: addrPort("203.0.113.200:40000"), Dst: netip.AddrPortFrom(host, 8080)},
			Reply:    netstate.Tuple{Src: reply, Dst: addrPort("203.0.113.200:40000")}}}
		trace := New(s).Walk(target)
		stop := trace.Stop(Diverted, NotPublished)
		switch {
		case test.kind == "" && len(trace.Stops) > 0:
			t.Errorf("%s: want it to pass:\n%s", test.what, describe(trace))
		case test.kind != "" && (stop == nil || stop.Object != "flow tcp 203.0.113.200:40000 → "+host.String()+":8080" || !trace.Verdict.Stops()):
			t.Errorf("%s: want it stopped by the entry:\n%s", test.what, describe(trace))
		}
	}
}

// An entry that leads to the container does so where there is a nat chain: that is not known where rules were not read.
func TestAnOlderConnectionWhereRulesWereNotRead(t *testing.T) {
	addrPort := netip.MustParseAddrPort
	for _, unread := range []bool{false, true} {
		s := healthy(t, "28.5.2-noproxy")
		target := web(t, s)
		target.Client, target.SPort, target.Iface = netip.MustParseAddr("203.0.113.200"), 40000, "ext0"
		in := netip.AddrPortFrom(container(t, s, "cA").Endpoints[0].IPv4.Addr(), 80)
		s.Host.Flows = []netstate.Flow{{Family: netstate.IPv4, Proto: "tcp", State: "ESTABLISHED", Status: ipsSeenReply | ipsConfirmed | ipsSrcNATDone | ipsDstNATDone | ipsDstNAT,
			Original: netstate.Tuple{Src: addrPort("203.0.113.200:40000"), Dst: addrPort("203.0.113.10:8080")},
			Reply:    netstate.Tuple{Src: in, Dst: addrPort("203.0.113.200:40000")}}}
		s.Host.Iptables, s.Host.Nft = nil, nil
		want := Drop
		if unread {
			want = May
			s.Lacks(netstate.Key{Part: netstate.Iptables | netstate.Nftables}, "permission denied")
		} else { // tracked all the same
			s.Host.Iptables = []netstate.IptablesSet{{Family: netstate.IPv4, Variant: "legacy", Tables: []netstate.IptablesTable{{Name: "filter",
				Chains: []netstate.IptablesChain{{Name: "FORWARD", Policy: "ACCEPT", Rules: []netstate.IptablesRule{{Text: "-m conntrack --ctstate INVALID -j DROP"}}}}}}}}
		}
		trace := New(s).Walk(target)
		if stop := trace.Stop(Diverted); stop == nil || trace.Verdict != want {
			t.Errorf("unread: %t: want %s by the entry:\n%s", unread, want, describe(trace))
		}
	}
}
