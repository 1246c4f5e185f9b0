package netstate

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ParseIptablesSave reads what iptables-save, ip6tables-save or one of their variants printed, with
// counters (-c) or without.
//
// The text is hostile: comments and interface names are anybody's. What it does not understand is in
// the error, one line each, beside the tables that it did; so is a table that iptables-nft cannot show.
// The error is then the reason why the tables are not the whole truth.
func ParseIptablesSave(text string) ([]IptablesTable, error) {
	var (
		tables []IptablesTable
		chains map[string]int // name → place in the open table; nil: no table is open
		wrong  []error

		incomplete = map[string]string{} // table → what iptables said of it, which it does first
	)
	for number := 1; text != ""; {
		record, lines := cutRecord(text)
		at := number
		text, number = strings.TrimPrefix(text[len(record):], "\n"), number+lines
		record = strings.TrimSuffix(record, "\r")
		fault := func(what string) {
			wrong = append(wrong, fmt.Errorf("line %d: %s: %q", at, what, shorten(record)))
		}
		switch {
		case record == "":
		case record[0] == '#':
			name, incompatible := incompatibleTable(record)
			switch {
			case !incompatible:
			case strings.Contains(record, "contains incompatible base-chains"):
				incomplete[name] = strings.TrimLeft(record, "# ")
			default: // it is not shown at all
				wrong = append(wrong, errors.New(shorten(strings.TrimLeft(record, "# "))))
			}
		case record[0] == '*':
			tables = append(tables, IptablesTable{Name: record[1:], Chains: []IptablesChain{}, Incomplete: incomplete[record[1:]]})
			chains = map[string]int{}
		case record == "COMMIT":
			chains = nil
		case chains == nil:
			fault("outside of any table")
		case record[0] == ':':
			chain, err := parseChain(record[1:])
			if err != nil {
				fault(err.Error())
				continue
			}
			table := &tables[len(tables)-1]
			chains[chain.Name] = len(table.Chains)
			table.Chains = append(table.Chains, chain)
		default:
			chain, rule, err := parseRule(record)
			if err != nil {
				fault(err.Error())
				continue
			}
			place, ok := chains[chain]
			if !ok {
				fault("rule of an undeclared chain")
				continue
			}
			table := &tables[len(tables)-1]
			table.Chains[place].Rules = append(table.Chains[place].Rules, rule)
		}
	}
	if chains != nil {
		wrong = append(wrong, fmt.Errorf("table %s: no COMMIT: the text is cut", shorten(tables[len(tables)-1].Name)))
	}
	return tables, errors.Join(wrong...)
}

// incompatibleTable reads "# Table `filter' is incompatible, use 'nft' tool." and "# Table `filter'
// contains incompatible base-chains, use 'nft' tool to list them."
func incompatibleTable(record string) (name string, ok bool) {
	rest, ok := strings.CutPrefix(record, "# Table `")
	if !ok || !strings.Contains(record, "incompatible") {
		return "", false
	}
	name, _, ok = strings.Cut(rest, "'")
	return name, ok
}

// cutRecord returns the first line of text without its newline, and how many lines it takes. A rule
// goes on over newlines inside quotes: iptables-save escapes quotes in a comment, but no newline.
func cutRecord(text string) (record string, lines int) {
	line, _, _ := strings.Cut(text, "\n")
	if !strings.Contains(line, `"`) || line[0] != '-' && line[0] != '[' {
		return line, 1
	}
	lines = 1
	quoted, start, previous := false, 0, ""
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
			if i < len(text) && text[i] == '\n' {
				lines++
			}
		case quoted && c == '"':
			quoted = false
		case quoted && c == '\n':
			lines++
		case c == '\n':
			return text[:i], lines
		case c == ' ':
			previous, start = text[start:i], i+1
		case c == '"' && i == start && !namesLink(previous):
			quoted = true
		}
	}
	if quoted { // a quote that never closes is not one
		return line, 1
	}
	return text, lines
}

// namesLink says whether an option's value is an interface's name, which is printed as it is: `"x` is
// a possible one.
func namesLink(option string) bool {
	switch option {
	case "-i", "-o", "--physdev-in", "--physdev-out":
		return true
	}
	return false
}

// parseChain reads "INPUT ACCEPT [1:60]"; the counters may lack.
func parseChain(text string) (IptablesChain, error) {
	field := strings.Fields(text)
	if len(field) < 2 || len(field) > 3 {
		return IptablesChain{}, errors.New("no chain")
	}
	chain := IptablesChain{Name: field[0]}
	if field[1] != "-" {
		chain.Policy = field[1]
	}
	if len(field) == 3 {
		var ok bool
		if chain.Packets, chain.Bytes, ok = parseCounters(field[2]); !ok {
			return IptablesChain{}, errors.New("no counters")
		}
	}
	return chain, nil
}

// parseRule reads "[1:60] -A INPUT -j ACCEPT"; the counters may lack.
func parseRule(text string) (chain string, rule IptablesRule, err error) {
	if text[0] == '[' {
		counters, rest, _ := strings.Cut(text, " ")
		var ok bool
		if rule.Packets, rule.Bytes, ok = parseCounters(counters); !ok {
			return "", rule, errors.New("no counters")
		}
		text = rest
	}
	text, ok := strings.CutPrefix(text, "-A ")
	if !ok {
		return "", rule, errors.New("not understood")
	}
	chain, rule.Text, _ = strings.Cut(text, " ")
	return chain, rule, nil
}

// parseCounters reads "[packets:bytes]".
func parseCounters(text string) (packets, bytes uint64, ok bool) {
	inner, ok := strings.CutPrefix(text, "[")
	if !ok {
		return 0, 0, false
	}
	if inner, ok = strings.CutSuffix(inner, "]"); !ok {
		return 0, 0, false
	}
	left, right, _ := strings.Cut(inner, ":")
	packets, err1 := strconv.ParseUint(left, 10, 64)
	bytes, err2 := strconv.ParseUint(right, 10, 64)
	return packets, bytes, err1 == nil && err2 == nil
}

func shorten(text string) string {
	const most = 200
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}
