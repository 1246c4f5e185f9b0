package checks

import "strings"

// Suite is every check, in the order in which a packet meets trouble.
var Suite = []*Check{
	Engine,
	Running,
	Published,
	Namespace,
	Listening,
	Veth,
	Bridge,
	DNAT,
	Accept,
	Masquerade,
	Forwarding,
	RPFilter,
	Route,
	Firewalld,
	Conntrack,
	MTU,
	DNS,
	Path,
}

// Find returns the check of the suite with that name, or nil.
func Find(name string) *Check {
	for _, check := range Suite {
		if check.Name == name {
			return check
		}
	}
	return nil
}

// Names returns the names of a suite's checks, separated by commas.
func Names(suite []*Check) string {
	names := make([]string, len(suite))
	for i, check := range suite {
		names[i] = check.Name
	}
	return strings.Join(names, ", ")
}
