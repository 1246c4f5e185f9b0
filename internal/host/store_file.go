//go:build linux

package host

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/remediate"
	"golang.org/x/sys/unix"
)

// A fileStore holds configuration files, kind "file". A name is a clean, absolute path below /etc, a value
// the file's content.
//
// A file is replaced whole: readers see the old one or the new one, also after a power cut. Mode, owner and
// extended attributes (an SELinux label, an ACL) stay; a new file is root's, mode 0644, with what its directory
// gives it. A link is followed, and what it names is made if it is not there. A file with two names, or a
// directory that is missing, is an error.
type fileStore struct{ m machine }

// fileAttributes is the kind of what a step that removes a file drags along. Its name is the file's, its
// value an attributes as JSON.
const fileAttributes = "file-attributes"

// attributes are what a file has beside its content.
type attributes struct {
	Mode  uint32            `json:"mode"` // permission bits, set-user-ID and the like included
	UID   uint32            `json:"uid"`
	GID   uint32            `json:"gid"`
	Xattr map[string]string `json:"xattr,omitempty"` // name → base64
}

// path returns where the file is, links resolved. The file itself need not be there. Links are followed
// as the machine would follow them, never out of its root.
func (s fileStore) path(name string) (string, error) {
	if !strings.HasPrefix(name, "/etc/") || filepath.Clean(name) != name || strings.ContainsRune(name, 0) {
		return "", errors.New("is no clean path below /etc")
	}
	at := "/"
	left := strings.Split(name[1:], "/")
	for links := 0; len(left) > 0; {
		next := filepath.Join(at, left[0])
		left = left[1:]
		target, err := os.Readlink(s.m.path(next))
		switch {
		case err == nil:
			if links++; links > 40 {
				return "", errors.New("is a link to itself")
			}
			if filepath.IsAbs(target) {
				at = "/"
			}
			left = append(strings.Split(target, "/"), left...)
			continue
		case errors.Is(err, unix.EINVAL): // no link
		case !errors.Is(err, fs.ErrNotExist) || len(left) > 0:
			return "", err
		}
		at = next
	}
	return s.m.path(at), nil
}

// get returns the content of a file and what else it has; nil if there is no such file.
func (s fileStore) get(name string) (content *string, has unix.Stat_t, err error) {
	path, err := s.path(name)
	if err != nil {
		return nil, has, err
	}
	// O_NONBLOCK: not to hang on a named pipe.
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, has, nil
	}
	if err != nil {
		return nil, has, err
	}
	defer file.Close()
	if err := unix.Fstat(int(file.Fd()), &has); err != nil {
		return nil, has, err
	}
	switch {
	case has.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, has, errors.New("is no regular file")
	case has.Nlink > 1:
		return nil, has, errors.New("has a second name (hard link), which would keep the old content")
	case has.Size > 16<<20:
		return nil, has, errors.New("is larger than any configuration file")
	}
	data, err := io.ReadAll(file)
	text := string(data)
	return &text, has, err
}

// attributesOf returns what the file at path has beside its content.
func attributesOf(path string, stat unix.Stat_t) (attributes, error) {
	has := attributes{Mode: stat.Mode &^ unix.S_IFMT, UID: stat.Uid, GID: stat.Gid}
	names := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, names)
	if errors.Is(err, unix.ENOTSUP) {
		return has, nil
	}
	if err != nil {
		return has, fmt.Errorf("list extended attributes: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return has, fmt.Errorf("read extended attribute %s: %w", name, err)
		}
		if has.Xattr == nil {
			has.Xattr = map[string]string{}
		}
		has.Xattr[name] = base64.StdEncoding.EncodeToString(value[:n])
	}
	return has, nil
}

// set gives an open file the attributes.
func (a attributes) set(file *os.File) error {
	if err := file.Chown(int(a.UID), int(a.GID)); err != nil {
		return err
	}
	if err := unix.Fchmod(int(file.Fd()), a.Mode); err != nil { // behind chown, which takes set-user-ID away
		return fmt.Errorf("chmod: %w", err)
	}
	for name, encoded := range a.Xattr {
		value, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return err
		}
		if err := unix.Fsetxattr(int(file.Fd()), name, value, 0); err != nil {
			return fmt.Errorf("set extended attribute %s: %w", name, err)
		}
	}
	return nil
}

// put replaces the file that holds what was read as before, by one with that content and, where some are
// given, attributes; nil removes it.
func (s fileStore) put(name string, before unix.Stat_t, content *string, has *attributes) (err error) {
	path, err := s.path(name)
	if err != nil {
		return err
	}
	// One name for all runs, so that the file of one that was killed does not stay.
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".docker-netcheck")
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if content != nil {
		if has == nil && before.Nlink > 0 {
			kept, err := attributesOf(path, before)
			if err != nil {
				return err
			}
			has = &kept
		}
		if err := create(temporary, *content, has); err != nil {
			os.Remove(temporary)
			return err
		}
	}
	var now unix.Stat_t
	err = unix.Lstat(path, &now)
	if gone := errors.Is(err, unix.ENOENT); err != nil && !gone ||
		gone != (before.Nlink == 0) || now.Ino != before.Ino || now.Ctim != before.Ctim || now.Size != before.Size {
		os.Remove(temporary)
		return errors.Join(remediate.ErrChanged, err)
	}
	switch {
	case content != nil:
		err = os.Rename(temporary, path)
	case before.Nlink > 0:
		err = os.Remove(path)
	}
	if err != nil {
		os.Remove(temporary)
		return err
	}
	directory, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer directory.Close()
	return directory.Sync()
}

// create makes the file with that content, on the disk when it returns.
func create(path, content string, has *attributes) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.WriteString(content); err != nil {
		return err
	}
	if has == nil {
		err = file.Chmod(0o644)
	} else {
		err = has.set(file)
	}
	if err != nil {
		return err
	}
	return file.Sync()
}

// Look implements [remediate.Store].
func (s fileStore) Look(_ context.Context, step remediate.Step) (remediate.Step, bool, error) {
	now, stat, err := s.get(step.Name)
	if err != nil {
		return step, false, fmt.Errorf("%s: %w", step.Object(), err)
	}
	if now == nil || step.New != nil {
		return step, remediate.Equal(now, step.New), nil
	}
	path, err := s.path(step.Name)
	if err != nil {
		return step, false, fmt.Errorf("%s: %w", step.Object(), err)
	}
	has, err := attributesOf(path, stat)
	if err != nil {
		return step, false, fmt.Errorf("%s: %w", step.Object(), err)
	}
	text, err := json.Marshal(has)
	if err != nil {
		return step, false, err
	}
	step.Also = []remediate.Step{remediate.Remove(fileAttributes, step.Name, string(text))}
	return step, false, nil
}

// Swap implements [remediate.Store].
func (s fileStore) Swap(ctx context.Context, steps []remediate.Step) ([]bool, error) {
	changed := make([]bool, len(steps))
	for i, step := range steps {
		if err := ctx.Err(); err != nil {
			return changed, err
		}
		now, stat, err := s.get(step.Name)
		switch {
		case err != nil:
			return changed, fmt.Errorf("%s: %w", step.Object(), err)
		case remediate.Equal(now, step.New) && !step.Settle:
			continue
		case !remediate.Equal(now, step.New) && !remediate.Equal(now, step.Old):
			return changed, remediate.Changed(step, now)
		}
		var has *attributes
		for _, also := range step.Also {
			if also.Kind == fileAttributes && also.New != nil {
				has = new(attributes)
				if err := json.Unmarshal([]byte(*also.New), has); err != nil {
					return changed, fmt.Errorf("%s: its attributes: %w", step.Object(), err)
				}
			}
		}
		if err := s.put(step.Name, stat, step.New, has); err != nil {
			return changed, fmt.Errorf("%s: %w", step.Object(), err)
		}
		changed[i] = !remediate.Equal(now, step.New)
	}
	return changed, nil
}
