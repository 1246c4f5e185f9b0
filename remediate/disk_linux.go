package remediate

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// What a journal needs of the system, beside package os.

const noFollow = unix.O_NOFOLLOW

// lockFile takes the lock of a file, or says that another process has it.
func lockFile(file *os.File) (busy bool, err error) {
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

func unlockFile(file *os.File) { unix.Flock(int(file.Fd()), unix.LOCK_UN) }

// ownerOf returns the user that a file belongs to.
func ownerOf(info fs.FileInfo) (uid int, err error) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, errors.New("has no owner")
	}
	return int(stat.Uid), nil
}

// reserve makes sure that length bytes at an offset of the file can be written. Where the file system
// cannot, a write that fails rolls back.
func reserve(file *os.File, offset, length int64) error {
	err := unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_KEEP_SIZE, offset, length)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return err
}
