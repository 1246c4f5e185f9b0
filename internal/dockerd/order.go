package dockerd

import "slices"

// order finds the rules that stand behind one which they must precede.
func (c *comparison) order(table, chain string, lines []line, standing []*line) {
	misplaced := func(l *line, kind Kind, behind *line) {
		c.add(Difference{Kind: kind, Table: table, Chain: chain, Rule: l.rule, Found: l.text, Number: l.number,
			Against: behind.text, AgainstNumber: behind.number, Foreign: behind.rule == nil && kind == Misplaced})
	}
	for _, l := range standing {
		if before := shadow(lines, l); before != nil {
			misplaced(l, Shadowed, before)
		}
	}
	builtIn := slices.Contains([]string{"FORWARD", "PREROUTING", "OUTPUT", "POSTROUTING"}, chain)
	moved := disordered(standing)
	for _, l := range standing {
		switch {
		case moved[l] != nil:
			misplaced(l, Misplaced, moved[l])
		case builtIn && l.rule.Why == Jump && l.rule.Network == "":
			// dockerd itself puts these before anything else.
			for i := range lines[:l.number-1] {
				if before := &lines[i]; before.rule == nil && before.spec.unconditional() {
					misplaced(l, Misplaced, before)
					break
				}
			}
		}
	}
}

// shadow returns the line before l that takes the packets of the published port which l is for, or nil.
func shadow(lines []line, l *line) *line {
	if l.rule.Why != DNAT {
		return nil
	}
	for i := range lines[:l.number-1] {
		if before := &lines[i]; before.rule == nil && before.samePackets(DNAT, l) && before.canonical != l.canonical {
			return before
		}
	}
	return nil
}

// disordered returns the fewest lines, as far as a greedy search tells, that must move for the others
// to stand in a right order, each with the line that it should precede or follow.
func disordered(standing []*line) map[*line]*line {
	against := map[*line][]*line{}
	for _, a := range standing {
		for _, b := range standing {
			if a.rule.precedes(b.rule) && a.number > b.number {
				against[a] = append(against[a], b)
				against[b] = append(against[b], a)
			}
		}
	}
	moved := map[*line]*line{}
	for {
		var worst *line
		for _, l := range standing {
			n := len(against[l])
			if n > 0 && (worst == nil || n > len(against[worst]) || n == len(against[worst]) && l.rule.Rank < worst.rule.Rank) {
				worst = l
			}
		}
		if worst == nil {
			return moved
		}
		moved[worst] = against[worst][0]
		for _, other := range against[worst] {
			against[other] = slices.DeleteFunc(against[other], func(l *line) bool { return l == worst })
		}
		delete(against, worst)
	}
}
