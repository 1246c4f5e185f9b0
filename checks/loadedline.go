package checks

import "strings"

// lineOfRule finds a rule or policy in what iptables-restore reads; 0: it is not there.
func lineOfRule(text string, part []string) int {
	table, number := "", 0
	for line := range strings.SplitSeq(text, "\n") {
		number++
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
			continue
		case words[0][0] == '*':
			table = words[0][1:]
		case table != part[2]:
		case part[4] == "" && len(words) > 1 && words[0] == ":"+part[3] && words[1] == "DROP":
			return number
		}
		if strings.HasPrefix(words[0], "[") { // counters
			words = words[1:]
		}
		if table == part[2] && part[4] != "" && strings.Join(words, " ") == "-A "+part[3]+" "+part[5] {
			return number
		}
	}
	return 0
}

// lineOfNft finds a rule in what nft reads, if it is written as nft prints it; else the line at which its table begins.
func lineOfNft(text string, part []string) (number int, isTable bool) {
	plain := func(text string) string {
		return strings.Join(strings.Fields(strings.NewReplacer(`"`, "", ";", " ").Replace(text)), " ")
	}
	table, within := 0, false // the table's line, and whether this one is in the chain
	for line := range strings.SplitSeq(text, "\n") {
		number++
		switch words := plain(line); {
		case words == "table "+part[1]+" "+part[2]+" {":
			table = number
		case strings.HasPrefix(words, "table "):
			if table > 0 {
				return table, true
			}
		case strings.HasPrefix(words, "chain "):
			within = table > 0 && words == "chain "+part[3]+" {"
		case !within:
		case part[4] != "" && words == plain(part[5]), part[4] == "" && strings.Contains(words, "policy drop"):
			return number, false
		}
	}
	return table, true
}
