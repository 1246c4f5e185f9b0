package checks

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/lazyregexp"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// A loader is a service that replaces rules by those of a file whenever it starts.
type loader struct {
	service string
	files   []string
	nft     bool
	ipv6    []string // of files, those for IPv6
}

// Source: the services' units in Debian and Fedora.
var loaders = []loader{
	{"netfilter-persistent", []string{"/etc/iptables/rules.v4", "/etc/iptables/rules.v6"}, false, []string{"/etc/iptables/rules.v6"}},
	{"iptables", []string{"/etc/sysconfig/iptables"}, false, nil},
	{"ip6tables", []string{"/etc/sysconfig/ip6tables"}, false, []string{"/etc/sysconfig/ip6tables"}},
	{"nftables", []string{"/etc/nftables.conf", "/etc/sysconfig/nftables.conf"}, true, nil},
	{"ferm", []string{"/etc/ferm/ferm.conf"}, false, nil},
	{"shorewall", []string{"/etc/shorewall"}, false, nil},
	{"shorewall6", []string{"/etc/shorewall6"}, false, nil},
}

// enabled says whether systemd starts the service at boot.
func enabled(s *netstate.Snapshot, service string) bool {
	for name := range s.Files {
		if path.Base(name) == service+".service" && strings.HasPrefix(name, "/etc/systemd/system/") {
			return true
		}
	}
	return false
}

// A loaded line is one of a file that a service applies at boot.
type loadedLine struct {
	service, file string
	line          int  // from 1
	table         bool // the rule was not found there, but its table begins there
}

func (l loadedLine) String() string { return fmt.Sprintf("%s:%d", l.file, l.line) }

// loadedRule returns the line that makes the rule or policy at boot, or nil.
func loadedRule(s *netstate.Snapshot, object string) *loadedLine {
	kind, part := ruleParts(object)
	if kind == "" {
		return nil
	}
	for _, l := range loaders {
		if l.nft != (kind == "nft") || !enabled(s, l.service) {
			continue
		}
		for _, file := range l.files {
			line := loadedLine{service: l.service, file: file}
			if l.nft {
				line.line, line.table = lineOfNft(netstate.UncommentNft(s.Files[file]), part)
			} else if slices.Contains(l.ipv6, file) == strings.HasPrefix(object, "ip6") {
				line.line = lineOfRule(s.Files[file], part)
			}
			if line.line > 0 {
				return &line
			}
		}
	}
	return nil
}

// missingRule is an object that is a rule of Docker's that is not there.
var missingRule = lazyregexp.New(`^(?:(ip6?tables)(?:-legacy)? (\S+)|nft) .*: missing `)

// flushed returns the line at which a service, whenever it starts, takes the rule's table away, or nil.
func flushed(s *netstate.Snapshot, object string) *loadedLine {
	part := missingRule().FindStringSubmatch(object)
	if part == nil {
		return nil
	}
	for _, l := range loaders {
		if !enabled(s, l.service) {
			continue
		}
		for _, file := range l.files {
			text, number := s.Files[file], 0
			if l.nft {
				text = netstate.UncommentNft(text)
			}
			for line := range strings.SplitSeq(text, "\n") {
				number++
				words := strings.Fields(strings.TrimSuffix(strings.TrimSpace(line), ";"))
				switch {
				case l.nft && slices.Equal(words, []string{"flush", "ruleset"}),
					!l.nft && len(words) == 1 && part[2] != "" && words[0] == "*"+part[2] && slices.Contains(l.ipv6, file) == (part[1] == "ip6tables"):
					return &loadedLine{service: l.service, file: file, line: number}
				}
			}
		}
	}
	return nil
}

// lasting says of a finding what a boot would make of its fix.
func (f *Finding) lasting(s *netstate.Snapshot) {
	say := func(advice string) {
		if f.Advice != "" {
			f.Advice += "; "
		}
		f.Advice += advice
	}
	if line := loadedRule(s, f.Object); line != nil && line.table {
		say(fmt.Sprintf("%s makes its table whenever it starts (%s): look there whether it makes this, too", line.service, line))
	} else if line != nil {
		f.SetBy = line.String()
		say(fmt.Sprintf("%s restores %s whenever it starts, and line %d makes this again: take it out there", line.service, line.file, line.line))
	} else if line := flushed(s, f.Object); line != nil {
		say(fmt.Sprintf("%s takes such rules away whenever it starts: %s; the engine has to start after it, and again where it is started anew", line.service, line))
	} else if kind, _ := ruleParts(f.Object); kind == "iptables" && f.Fix != nil && f.Fix.Opens {
		for _, l := range loaders {
			if enabled(s, l.service) && s.Files[l.files[0]] == "" && !l.nft { // their files are no lists of rules
				say(fmt.Sprintf("%s makes its rules from %s at boot: where this is one of them, let the traffic pass there", l.service, l.files[0]))
			}
		}
	}
}
