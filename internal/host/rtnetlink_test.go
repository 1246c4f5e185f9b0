//go:build linux

package host

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"
)

var addresses = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}, netip.AddrPort{})

// message puts attributes behind a fixed header, as the kernel sends them.
func message(header []byte, attributes ...[]byte) []byte {
	return append(slices.Clone(header), slices.Concat(attributes...)...)
}

func text0(text string) []byte { return append([]byte(text), 0) }

func uint16Bytes(v uint16) []byte { return binary.NativeEndian.AppendUint16(nil, v) }

// linkHeader is a struct ifinfomsg of a link that is up.
func linkHeader(index uint32) []byte {
	header := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(header[4:], index)
	binary.NativeEndian.PutUint32(header[8:], unix.IFF_UP|unix.IFF_LOWER_UP)
	return header
}

// Kinds of links that not every kernel can make.
func TestParseLinkKinds(t *testing.T) {
	info := func(kind string, data ...[]byte) []byte {
		return attribute(unix.IFLA_LINKINFO, slices.Concat(
			attribute(unix.IFLA_INFO_KIND, text0(kind)), attribute(unix.IFLA_INFO_DATA, slices.Concat(data...))))
	}
	for _, test := range []struct {
		name string
		info []byte
		want netstate.Link
	}{
		{"vrf", info("vrf", attribute(unix.IFLA_VRF_TABLE, uint32Bytes(100))), netstate.Link{Kind: "vrf", Table: 100}},
		{"vlan", info("vlan", attribute(unix.IFLA_VLAN_ID, uint16Bytes(42))), netstate.Link{Kind: "vlan", VLAN: 42}},
		{"macvlan", info("macvlan", attribute(unix.IFLA_MACVLAN_MODE, uint32Bytes(4))), netstate.Link{Kind: "macvlan", Mode: "bridge"}},
		{"macvlan of a later kernel", info("macvlan", attribute(unix.IFLA_MACVLAN_MODE, uint32Bytes(64))), netstate.Link{Kind: "macvlan", Mode: "64"}},
		{"ipvlan", info("ipvlan", attribute(unix.IFLA_IPVLAN_MODE, uint16Bytes(2))), netstate.Link{Kind: "ipvlan", Mode: "l3s"}},
		{"wireguard", info("wireguard"), netstate.Link{Kind: "wireguard"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			data := message(linkHeader(7), attribute(unix.IFLA_IFNAME, text0("x0")), attribute(unix.IFLA_MTU, uint32Bytes(1400)),
				attribute(unix.IFLA_LINK, uint32Bytes(2)), test.info)
			got, err := parseLink(data, map[string]string{})
			if err != nil {
				t.Fatal(err)
			}
			want := test.want
			want.Index, want.Name, want.MTU, want.Peer, want.Up, want.Carrier = 7, "x0", 1400, 2, true, true
			if diff := cmp.Diff(want, got, addresses); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A dot in an interface's name is a slash in the name of its sysctl, and an older kernel's shorter
// array gives fewer of them.
func TestParseLinkSysctls(t *testing.T) {
	array := slices.Concat(uint32Bytes(1), uint32Bytes(0), uint32Bytes(1)) // forwarding, mc_forwarding, proxy_arp
	data := message(linkHeader(7), attribute(unix.IFLA_IFNAME, text0("eth0.100")),
		attribute(unix.IFLA_AF_SPEC, attribute(unix.AF_INET, attribute(unix.IFLA_INET_CONF, array))))
	sysctls := map[string]string{}
	if _, err := parseLink(data, sysctls); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"net.ipv4.conf.eth0/100.forwarding": "1", "net.ipv4.conf.eth0/100.mc_forwarding": "0", "net.ipv4.conf.eth0/100.proxy_arp": "1",
	}
	if diff := cmp.Diff(want, sysctls); diff != "" {
		t.Error(diff)
	}
}

// A rule's condition that is not understood is kept as one.
func TestParseRule(t *testing.T) {
	header := make([]byte, unix.SizeofRtMsg)
	header[0], header[7] = unix.AF_INET, unix.FR_ACT_TO_TBL
	data := message(header, attribute(fraPriority, uint32Bytes(1000)), attribute(fraTable, uint32Bytes(300)),
		attribute(fraL3mdev, []byte{1}), attribute(25, []byte{8}), attribute(99, []byte{1, 2}),
		attribute(fraSPortRange, slices.Concat(uint16Bytes(80), uint16Bytes(90))), attribute(fraSuppressPrefix, uint32Bytes(suppressNothing)))
	got, err := parseRule(data)
	if err != nil {
		t.Fatal(err)
	}
	want := netstate.Rule{Family: netstate.IPv4, Priority: 1000, Action: "table", Table: 300, L3mdev: true, SPort: &[2]uint16{80, 90},
		Opaque: []string{"dscp 08", "attribute 99 0102"}}
	if diff := cmp.Diff(want, got, addresses); diff != "" {
		t.Error(diff)
	}
	header[7] = 77
	if got, _ := parseRule(header); got.Action != "77" || len(got.Opaque) != 1 {
		t.Errorf("unknown action: %+v", got)
	}
}

// A nexthop group has its members' ids.
func TestParseNexthopGroup(t *testing.T) {
	member := func(id uint32) []byte { return append(uint32Bytes(id), 0, 0, 0, 0) }
	got, err := parseNexthop(message(make([]byte, sizeofNhMsg), attribute(nhaID, uint32Bytes(9)),
		attribute(nhaGroup, slices.Concat(member(7), member(8)))), nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(netstate.Nexthop{ID: 9, Group: []uint32{7, 8}}, got, addresses); diff != "" {
		t.Error(diff)
	}
}

// SCTP's endpoints are listed by /proc alone.
func TestParseSCTP(t *testing.T) {
	const text = ` ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS
ffff8880 ffff8881 2   10  37   5000      0 4711 0.0.0.0
ffff8882 ffff8883 2   10  38   5001      0 4712 192.0.2.1 2001:0db8:0000:0000:0000:0000:0000:0001
`
	got, err := parseSCTP(text)
	if err != nil {
		t.Fatal(err)
	}
	want := []netstate.Socket{
		{Proto: "sctp", State: "listen", Local: netip.MustParseAddrPort("0.0.0.0:5000"), Inode: 4711},
		{Proto: "sctp", State: "listen", Local: netip.MustParseAddrPort("192.0.2.1:5001"), Inode: 4712},
		{Proto: "sctp", State: "listen", Local: netip.MustParseAddrPort("[2001:db8::1]:5001"), Inode: 4712},
	}
	if diff := cmp.Diff(want, got, addresses); diff != "" {
		t.Error(diff)
	}
	for _, text := range []string{"a b c", "e s 2 x 1 5000 0 1 0.0.0.0", "e s 2 10 1 5000 0 1 nowhere"} {
		if _, err := parseSCTP(text); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}

// No message panics, however it is cut.
func FuzzParseMessages(f *testing.F) {
	f.Add(message(linkHeader(1), attribute(unix.IFLA_LINKINFO, attribute(unix.IFLA_INFO_KIND, text0("bridge")))))
	f.Add(message(make([]byte, unix.SizeofRtMsg), attribute(unix.RTA_MULTIPATH, make([]byte, 24)), attribute(unix.RTA_VIA, []byte{2})))
	f.Add(message(make([]byte, sizeofNfGenMsg), attribute(ipsetTypeName, text0("hash:ip,port")),
		attribute(ipsetADT, attribute(ipsetData, attribute(ipsetIP, attribute(ipsetNestedV4, []byte{1, 2, 3, 4}))))))
	f.Add(make([]byte, sizeofInetDiagMsg))
	f.Fuzz(func(t *testing.T, data []byte) {
		parseLink(data, map[string]string{})
		parseAddr(data, nil)
		parseNeigh(data, nil)
		parseVLANs(data)
		parseRoute(data, nil)
		parseRule(data)
		parseNexthop(data, nil)
		parseSocket(data, "tcp", func() linkNames { return nil })
		parseIpset(nil, data)
		parseFlow(data)
		parseQdisc(data, nil)
		parseSCTP(string(data))
	})
}
