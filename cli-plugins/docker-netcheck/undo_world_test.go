//go:build linux

package main

import (
	"fmt"
	"strings"
)

// diskFull has less and less room for the journal: either the fix is made and can be taken back, or nothing
// was changed.
func diskFull(b *bench) {
	b.sh(flushAll)
	broken := b.state()
	full := 0
	for _, kilobytes := range []int{4, 8, 16, 28, 512} {
		b.sh(fmt.Sprintf("mkdir -p /var/lib/docker-netcheck; mount -t tmpfs -o size=%dk,mode=700 journal /var/lib/docker-netcheck", kilobytes))
		out, exit := b.run("docker", "netcheck", "--fix", "--yes", "web")
		switch {
		case exit == 0:
			b.undoes(broken)
		case (exit == 1 || exit == 125) && strings.Contains(b.stderr, "no space left on device"):
			full++
			b.settles(broken)
		default:
			b.t.Errorf("%d KB: exit status %d: %s%s", kilobytes, exit, out, b.stderr)
		}
		b.sh("umount /var/lib/docker-netcheck")
	}
	if full == 0 || full == 5 {
		b.t.Errorf("the disk was full %d of 5 times", full)
	}
	b.fixes()
}

// otherBoot has the host believe that it was started anew.
func otherBoot(b *bench) {
	b.sh(hardened)
	broken := b.state()
	b.fixes()
	fixed := b.state()
	b.sh("echo 00000000-0000-4000-8000-000000000001 >/root/boot_id; mount --bind /root/boot_id /proc/sys/kernel/random/boot_id")
	if out, exit := b.run("docker", "netcheck", "undo", "--yes"); exit != 1 || !strings.Contains(b.stderr, "the host was started anew since") {
		b.t.Errorf("exit status %d: %s%s", exit, out, b.stderr)
	}
	b.sh("umount /proc/sys/kernel/random/boot_id")
	b.settles(fixed)
	b.sh(hardened)
	b.settles(broken)
	b.fixes()
}
