//go:build unix

package agent

import (
	"os/exec"
	"syscall"
)

// detach keeps signals of our terminal from the command.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }
