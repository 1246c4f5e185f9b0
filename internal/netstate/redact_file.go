package netstate

import (
	"path"
	"strings"
)

// redactFile leaves out what people wrote into a file, and keeps its lines' numbers.
func redactFile(name, text string) string {
	switch {
	case strings.Contains(name, "/systemd/network"): // network/, networkd.conf, networkd.conf.d/
		return redactNetworkd(text)
	case path.Base(name) == "nftables.conf":
		return UncommentNft(text)
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		trimmed := strings.TrimSpace(line)
		if strings.HasPrefix(trimmed, "#") || strings.HasPrefix(trimmed, ";") {
			lines[i] = trimmed[:1]
			continue
		}
		words := strings.Fields(line)
		if path.Base(name) == "resolv.conf" && len(words) > 0 && (words[0] == "search" || words[0] == "domain") {
			for n := 1; n < len(words); n++ {
				words[n] = "example.com"
			}
			lines[i] = strings.Join(words, " ")
		}
	}
	return strings.Join(lines, "\n")
}

// redactNetworkd keeps the sections Match and Network, of the one the keys and the names of links, of the other the
// switches of forwarding. Such files hold domains, names and secrets besides.
func redactNetworkd(text string) string {
	lines := strings.Split(text, "\n")
	section := ""
	for i, line := range lines {
		line = strings.TrimSpace(line)
		key, _, ok := strings.Cut(line, "=")
		key = strings.TrimSpace(key)
		lines[i] = ""
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '[' && line[len(line)-1] == ']':
			section = line
			if section != "[Match]" && section != "[Network]" {
				section = "[]"
			}
			lines[i] = section
		case !ok:
		case section == "[Match]" && key != "Name":
			lines[i] = key + "="
		case section == "[Match]", section == "[Network]" && (key == "IPv4Forwarding" || key == "IPv6Forwarding"):
			lines[i] = line
		}
	}
	return strings.Join(lines, "\n")
}

// UncommentNft returns a file that nft reads without its comments. Lines keep their numbers.
func UncommentNft(text string) string {
	var b strings.Builder
	quoted, comment := false, false
	for i := range len(text) {
		switch c := text[i]; {
		case c == '\n':
			comment = false
		case comment:
			continue
		case c == '"':
			quoted = !quoted
		case c == '#' && !quoted:
			comment = true
			continue
		}
		b.WriteByte(text[i])
	}
	return b.String()
}
