//go:build !linux

package remediate

import (
	"errors"
	"io/fs"
	"os"
)

// A journal is kept on the engine's host, which is a Linux one: elsewhere none is written.

const noFollow = 0

var errNotLinux = errors.New("only a Linux host is changed")

func lockFile(*os.File) (busy bool, err error)          { return false, errNotLinux }
func unlockFile(*os.File)                               {}
func ownerOf(fs.FileInfo) (uid int, err error)          { return 0, errNotLinux }
func reserve(file *os.File, offset, length int64) error { return errNotLinux }
