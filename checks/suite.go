package checks

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
