package dockerd

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// A spec is an iptables rule taken apart, so that what two versions of iptables print for one rule, or
// two people write, compares as equal: options in any order, long or short names, addresses with or
// without /32, numbers in hex or decimal, with or without the match that -p already loads.
type spec struct {
	options []option // of no match extension, and those of the protocol's own match
	matches []match  // extensions, each with its options
	target  match    // -j or -g with its options
	jumps   bool     // -j; false: -g, or no target at all
}

// A match is an extension by name, with its options.
type match struct {
	name    string
	options []option
}

// An option is one option of a rule with its arguments, which may be negated.
type option struct {
	not   bool
	name  string
	value string
}

// shortNames gives the name by which iptables-save prints an option.
var shortNames = map[string]string{
	"--source": "-s", "--src": "-s", "--destination": "-d", "--dst": "-d", "--in-interface": "-i", "--out-interface": "-o",
	"--protocol": "-p", "--proto": "-p", "--jump": "-j", "--goto": "-g", "--match": "-m", "--fragment": "-f",
	"--destination-port": "--dport", "--source-port": "--sport",
}

// protocolNames gives the name that iptables-save prints for a protocol's number or other name.
var protocolNames = map[string]string{
	"1": "icmp", "6": "tcp", "17": "udp", "33": "dccp", "58": "ipv6-icmp", "icmpv6": "ipv6-icmp", "132": "sctp", "0": "all",
}

// parse takes a rule apart. It accepts every text: what it does not understand stays in it as it stands.
func parse(text string) spec {
	var s spec
	words := Words(text)
	into := &s.options
	protocol := ""
	for i := 0; i < len(words); {
		o := option{}
		if words[i] == "!" {
			o.not = true
			i++
		}
		if i == len(words) {
			break
		}
		o.name = words[i]
		if short := shortNames[o.name]; short != "" {
			o.name = short
		}
		i++
		var values []string
		for i < len(words) && !isOption(words, i) {
			values = append(values, words[i])
			i++
		}
		o.value = strings.Join(values, " ")
		switch o.name {
		case "-m":
			if o.value == protocol || protocol == "ipv6-icmp" && o.value == "icmp6" {
				into = &s.options
				continue
			}
			s.matches = append(s.matches, match{name: o.value})
			into = &s.matches[len(s.matches)-1].options
		case "-j", "-g":
			s.target.name, s.jumps = o.value, o.name == "-j"
			into = &s.target.options
		case "-p":
			if name := protocolNames[o.value]; name != "" {
				o.value = name
			}
			protocol = o.value
			s.options = append(s.options, o)
		case "-s", "-d":
			o.value = canonicalPrefix(o.value)
			s.options = append(s.options, o)
		case "-i", "-o", "-f":
			s.options = append(s.options, o)
		default:
			o.value = canonicalValue(o.name, o.value)
			*into = append(*into, o)
		}
	}
	return s
}

// isOption says whether the word at i begins an option: it starts with a dash and is no negative number,
// or it is the "!" before one.
func isOption(words []string, i int) bool {
	if words[i] == "!" {
		return true
	}
	return len(words[i]) > 1 && words[i][0] == '-' && (words[i][1] < '0' || words[i][1] > '9')
}

// Words cuts a rule into words; double quotes hold a word together, a backslash stands before a quote.
func Words(text string) []string {
	var words []string
	var word strings.Builder
	quoted, inWord := false, false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\\' && quoted && i+1 < len(text):
			i++
			word.WriteByte(text[i])
		case c == '"':
			quoted, inWord = !quoted, true
		case c == ' ' && !quoted:
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if inWord {
		words = append(words, word.String())
	}
	return words
}

// canonicalPrefix writes an address or prefix as netip does, with its length; other text stays.
func canonicalPrefix(text string) string {
	if addr, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(addr, addr.BitLen()).String()
	}
	if prefix, err := netip.ParsePrefix(text); err == nil {
		return prefix.Masked().String()
	}
	return text
}

// canonicalValue makes equal what options of these names take as equal.
func canonicalValue(name, value string) string {
	switch name {
	case "--ctstate", "--state", "--dst-type", "--src-type":
		list := strings.Split(value, ",")
		slices.Sort(list)
		return strings.Join(list, ",")
	case "--mark":
		number, mask, masked := strings.Cut(value, "/")
		n, err := strconv.ParseUint(number, 0, 32)
		if err != nil {
			return value
		}
		m := uint64(0xffffffff)
		if masked {
			if m, err = strconv.ParseUint(mask, 0, 32); err != nil {
				return value
			}
		}
		return strconv.FormatUint(n, 10) + "/" + strconv.FormatUint(m, 10)
	}
	return value
}

// String returns the one text of all rules that mean the same to iptables.
func (s spec) String() string {
	var b strings.Builder
	writeOptions(&b, s.options)
	matches := make([]string, len(s.matches))
	for i, m := range s.matches {
		var one strings.Builder
		one.WriteString(" -m " + m.name)
		writeOptions(&one, m.options)
		matches[i] = one.String()
	}
	slices.Sort(matches)
	for _, m := range matches {
		b.WriteString(m)
	}
	if s.target.name != "" {
		if s.jumps {
			b.WriteString(" -j " + s.target.name)
		} else {
			b.WriteString(" -g " + s.target.name)
		}
		writeOptions(&b, s.target.options)
	}
	return b.String()
}

func writeOptions(b *strings.Builder, options []option) {
	sorted := slices.Clone(options)
	slices.SortFunc(sorted, func(x, y option) int { return strings.Compare(x.name+x.value, y.name+y.value) })
	for _, o := range sorted {
		if o.not {
			b.WriteString(" !")
		}
		b.WriteString(" " + o.name + " " + o.value)
	}
}

// canonical returns the same text for every rule that means the same to iptables.
func canonical(text string) string { return parse(text).String() }

// get returns the value of an option that stands in no extension but the protocol's, written "! value"
// if negated; "" if the rule has none.
func (s spec) get(name string) string {
	for _, o := range s.options {
		if o.name == name {
			if o.not {
				return "! " + o.value
			}
			return o.value
		}
	}
	return ""
}

// arg returns the value of an option of the target, or "".
func (s spec) arg(name string) string {
	for _, o := range s.target.options {
		if o.name == name {
			return o.value
		}
	}
	return ""
}

// has says whether the rule uses that match extension.
func (s spec) has(name string) bool {
	return slices.ContainsFunc(s.matches, func(m match) bool { return m.name == name })
}

// unconditional says whether the rule takes every packet and ends its base chain there.
func (s spec) unconditional() bool {
	switch s.target.name {
	case "ACCEPT", "DROP", "REJECT", "RETURN":
		return len(s.options) == 0 && len(s.matches) == 0
	}
	return false
}

// addr returns the single, not negated address that -s or -d names, or the zero address.
func (s spec) addr(name string) netip.Addr {
	prefix, err := netip.ParsePrefix(s.get(name))
	if err != nil || !prefix.IsSingleIP() {
		return netip.Addr{}
	}
	return prefix.Addr()
}
