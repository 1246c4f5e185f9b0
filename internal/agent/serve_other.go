//go:build !linux

package agent

import (
	"fmt"
	"os"
)

// Main is the program inside a helper container, which is a Linux one.
func Main([]string) int {
	fmt.Fprintln(os.Stderr, ServeArg+" is for netcheck's own helper containers")
	return 125
}
