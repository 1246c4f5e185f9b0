package packet

import (
	"net/netip"
	"strings"
)

// Who makes rules. Yours is everybody who writes rules by hand or with something not known here.
const yours = "yours"

// owners tells makers by what they put into names of chains and tables, in the order of trying. Sources:
// each program's own documentation or the rules that it programs.
var owners = []struct {
	owner    string
	prefixes []string
}{
	{"Docker", []string{"DOCKER", "docker-bridges"}},
	{"firewalld", []string{"firewalld", "FWD", "FWDI", "FWDO", "FORWARD_", "INPUT_", "OUTPUT_", "PREROUTING_", "POSTROUTING_", "FWI_", "FWO_", "IN_", "filter_FORWARD", "filter_FWD", "filter_IN", "filter_INPUT", "filter_OUTPUT", "filter_PREROUTING", "nat_PRE", "nat_POST", "mangle_PRE"}},
	{"ufw", []string{"ufw-", "ufw6-"}},
	{"kube-proxy", []string{"KUBE-", "kube-proxy"}},
	{"CNI", []string{"CNI-", "cali-", "cali_", "calico", "FLANNEL-", "flannel", "CILIUM_", "cilium", "WEAVE", "AWS-", "KUBE-ROUTER"}},
	{"fail2ban", []string{"f2b-", "fail2ban", "f2b-table"}},
	{"CrowdSec", []string{"crowdsec", "CROWDSEC"}},
	{"libvirt", []string{"LIBVIRT_", "libvirt"}},
	{"NetworkManager", []string{"nm-sh-", "nm-shared", "nm-"}},
	{"Tailscale", []string{"ts-", "tailscale"}},
	{"a VPN", []string{"wg-quick", "nordvpn", "mullvad", "protonvpn", "expressvpn", "evpn", "surfshark"}},
	{"Podman", []string{"NETAVARK", "netavark"}},
	{"LXD", []string{"lxd", "incus", "fwd.lxd", "pstrt.lxd"}},
	{"SSHGuard", []string{"sshguard"}},
	{"Open vSwitch", []string{"neutron-"}},
	{"CSF", []string{"LOCALINPUT", "DENYIN", "DENYOUT", "ALLOWIN", "INVDROP"}},
}

// ownerOf tells who made a chain, or "".
func ownerOf(table, chain string) string {
	for _, o := range owners {
		for _, prefix := range o.prefixes {
			if strings.HasPrefix(chain, prefix) || strings.HasPrefix(table, prefix) {
				if chain == "DOCKER-USER" {
					return yours
				}
				return o.owner
			}
		}
	}
	return ""
}

// dockers are the rules that dockerd puts into chains that are not its own, word by word: * is any word, @ one that
// is a bridge or "lo". Source: moby's libnetwork, every version from 20.10 to 29.
var dockers = map[string][]string{
	"raw PREROUTING": {
		"-d * -i @ -j DROP|ACCEPT",
		"-d * ! -i @ -j DROP|ACCEPT",
		"-d * -i @ -p * -m * --dport * -j DROP|ACCEPT",
		"-d * ! -i @ -p * -m * --dport * -j DROP|ACCEPT",
	},
	"nat POSTROUTING": {
		"-s * ! -o @ -j MASQUERADE",
		"-s * ! -o @ -j SNAT --to-source *",
		"-o @ -m addrtype --src-type LOCAL -j MASQUERADE",
		"-o @ -m addrtype --src-type LOCAL -j SNAT --to-source *",
		"-s * -d * -p * -m * --dport * -j MASQUERADE",
		"-s * -d * -p * -m * --dport * -j SNAT --to-source *",
	},
	"filter FORWARD": {
		"-i @ -j DROP|ACCEPT",
		"-i @ -o @ -j DROP|ACCEPT",
		"-i @ ! -o @ -j DROP|ACCEPT",
		"-o @ -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
	},
}

// reads says whether a rule is one of that shape, and names the last bridge in it, "" if there is none.
func reads(words []string, shape string) (bridge string, ok bool) {
	want := strings.Fields(shape)
	if len(words) != len(want) {
		return "", false
	}
	for i, word := range words {
		switch {
		case want[i] == "*":
		case want[i] == "@":
			if word != "lo" {
				bridge = word
			}
		case want[i] == "DROP|ACCEPT":
			if word != "DROP" && word != "ACCEPT" {
				return "", false
			}
		case want[i] != word:
			return "", false
		}
	}
	return bridge, true
}

// owner tells who made the rule: by its chain, by the chain that it jumps to, by its comment, or by its looks.
func (r *rule) owner(x *Index) string {
	if r.chain.owner != "" {
		return r.chain.owner
	}
	if r.maker == "" {
		r.maker = r.guessOwner(x)
	}
	return r.maker
}

func (r *rule) guessOwner(x *Index) string {
	text := r.text()
	if at := strings.LastIndex(text, "-j "); at >= 0 {
		target, _, _ := strings.Cut(text[at+3:], " ")
		if target == "DOCKER-USER" {
			return "Docker"
		}
		if o := ownerOf("", target); o != "" {
			return o
		}
	}
	switch comment := r.comment; {
	case strings.HasPrefix(comment, "kubernetes"), strings.HasPrefix(comment, "KUBE"):
		return "kube-proxy"
	case strings.HasPrefix(comment, "cali:"), strings.Contains(comment, "flannel"), strings.Contains(comment, "cilium"):
		return "CNI"
	case strings.Contains(comment, "fail2ban"):
		return "fail2ban"
	case strings.Contains(comment, "wg-quick"):
		return "a VPN"
	case strings.Contains(comment, "generated for LXD"), strings.Contains(comment, "generated for Incus"):
		return "LXD"
	}
	words := strings.Fields(text)
	for _, shape := range dockers[r.chain.table+" "+r.chain.name] {
		bridge, ok := reads(words, shape)
		if !ok {
			continue
		}
		if bridge == "" || bridge == "docker0" || x.dockerBridge(bridge) || strings.HasPrefix(bridge, "br-") {
			return "Docker"
		}
		if r.chain.table == "raw" && x.bridges[prefixAddr(text)] != "" {
			return "Docker" // a trusted host interface
		}
	}
	return yours
}

// prefixAddr returns the address behind -d, or the zero address.
func prefixAddr(text string) netip.Addr {
	text, _ = strings.CutPrefix(text, "-d ")
	text, _, _ = strings.Cut(text, " ")
	prefix, _ := parsePrefix(text)
	return prefix.Addr()
}

// dockerBridge says whether a Docker network has the bridge of that name.
func (x *Index) dockerBridge(name string) bool {
	for i := range x.snap.Networks {
		if x.snap.Networks[i].Bridge() == name {
			return true
		}
	}
	return false
}
