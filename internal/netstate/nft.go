package netstate

// A Ruleset is all that nf_tables holds in one network namespace.
type Ruleset struct{}
