//go:build linux

package main

import (
	"context"
	"slices"

	"github.com/docker-netcheck/docker-netcheck/checks"
	"github.com/docker-netcheck/docker-netcheck/internal/lab"
)

// A fault is one way to break a healthy host, and what netcheck has to say of it.
type fault struct {
	name    string
	suites  []string                               // where it can be made; default all
	options lab.Options                            // of the host; with IPv6 the IPv6 target is the one that is judged
	setup   string                                 // shell script in the host before web is made
	run     []string                               // docker run options of web; default -p 80:80
	command []string                               // of web; default a web server on port 80
	more    string                                 // shell script behind web; it may use $WEBPID, $WEBIP and $VETH, as what follows
	inject  string                                 // shell script that breaks it
	start   func(*lab.Host, context.Context) error // a daemon that is started before inject
	probe   string                                 // shell script instead of the way's own probe; it succeeds where all is well
	args    []string                               // of netcheck; default web

	way    string // what fails: "in" from the far client, "big" for more than one segment, "near" from one on the link, "host", "localhost", "in6", "out", "gateway", "peer", "dns"; "" nothing that a probe shows
	status checks.Status
	check  string // of the cause of the target in that direction
	object string // of the cause: a regular expression, for all of it
	note   string // of a decoy: a regular expression for one of the report's notes
	fixed  bool   // --fix --yes puts it right
	allow  string // --allow that the fix needs
}

// The engines by what they have.
var (
	newer    = []string{lab.Trixie, lab.Forky} // firewalld 2
	noProxy  = map[string]any{"userland-proxy": false}
	serve    = "setsid python3 -m http.server --bind %s 9000 >/dev/null 2>&1 </dev/null &\nfor i in $(seq 40); do ss -ltnH | grep -q :9000 && break; sleep .05; done\n"
	peerOf   = "docker run -d --name peer bb:1 sleep 9999 >/dev/null\n"
	toWeb    = []string{"--to", "web:80", "peer"}
	nearby   = []string{"--client", lab.ClientAddr, "web"}
	afar     = []string{"--client", lab.FarAddr, "web"}
	afar6    = []string{"--client", lab.FarAddr6, "web"}
	toClient = []string{"--to", lab.ClientAddr + ":8080", "web"}
	toBridge = []string{"--to", "172.17.0.1:9000", "web"}
)

const macvlan = `docker network create -d macvlan --subnet 198.51.100.0/24 --gateway 198.51.100.2 --ip-range 198.51.100.128/28 -o parent=eth0 mv`

// resolves asks for a name as the container's programs do.
const resolves = `docker exec web timeout 3 nslookup example.com`

const hardened = `sysctl -qw net.ipv4.ip_forward=0`

// allFaults is the whole table.
func allFaults() []fault {
	return slices.Concat(containerFaults, filterFaults, routeFaults, otherFaults)
}
