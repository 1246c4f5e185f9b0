//go:build linux

package lab

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Image is the name of the image that ImportImage makes: a static busybox with
// links for its applets, and a web root in /www with Hello as index.html and
// BigSize bytes as big.
const (
	Image   = "bb:1"
	Hello   = "hello\n"
	BigSize = 300_000
)

// ImportImage gives the engine the image.
func (h *Host) ImportImage(ctx context.Context) error {
	busybox, err := os.ReadFile(h.Path("/usr/bin/busybox"))
	if err != nil {
		return err
	}
	applets, err := h.Run(ctx, "busybox", "--list")
	if err != nil {
		return err
	}
	var image bytes.Buffer
	w := tar.NewWriter(&image)
	add := func(hdr tar.Header, text []byte) {
		hdr.Size = int64(len(text))
		if err == nil {
			err = w.WriteHeader(&hdr)
		}
		if err == nil {
			_, err = w.Write(text)
		}
	}
	add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, busybox)
	for _, name := range strings.Fields(applets) {
		if name != "busybox" {
			add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox"}, nil)
		}
	}
	add(tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}, nil)
	add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/passwd", Mode: 0o644}, []byte("root:x:0:0:root:/:/bin/sh\n"))
	add(tar.Header{Typeflag: tar.TypeReg, Name: "www/index.html", Mode: 0o644}, []byte(Hello))
	add(tar.Header{Typeflag: tar.TypeReg, Name: "www/big", Mode: 0o644}, bytes.Repeat([]byte("0123456789"), BigSize/10))
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return fmt.Errorf("image %s: %w", Image, err)
	}
	cmd := h.Command(ctx, "docker", "import", "--change", "CMD sleep 1000000", "-", Image)
	cmd.Stdin = &image
	if _, err = output(cmd, "docker import"); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.image = true
	return nil
}

// RunContainer is `docker run -d --name NAME ARGS…`, with the image imported
// before if it has not been. To stop such a container is to kill it: a web
// server that is PID 1 would ignore SIGTERM until the engine loses patience.
func (h *Host) RunContainer(ctx context.Context, name string, args ...string) error {
	h.mu.Lock()
	have := h.image
	h.mu.Unlock()
	if !have {
		if err := h.ImportImage(ctx); err != nil {
			return err
		}
	}
	_, err := h.Docker(ctx, append([]string{"run", "-d", "--stop-signal", "KILL", "--name", name}, args...)...)
	return err
}

// Web runs a container with a web server on port 80, with options of docker run
// such as "-p", "80:80", and waits until the server listens. It must have a
// network namespace of its own.
func (h *Host) Web(ctx context.Context, name string, options ...string) error {
	args := append(options[:len(options):len(options)], Image, "httpd", "-f", "-p", "80", "-h", "/www")
	if err := h.RunContainer(ctx, name, args...); err != nil {
		return err
	}
	c, err := h.Container(ctx, name)
	if err != nil {
		return err
	}
	defer c.close()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := poll(ctx, func() error { return c.Connect(ctx, "127.0.0.1:80") }); err != nil {
		return fmt.Errorf("container %s: %w", name, err)
	}
	return nil
}

// ContainerPID is the first process of a container, as the host numbers it.
func (h *Host) ContainerPID(ctx context.Context, name string) (int, error) {
	out, err := h.Inspect(ctx, name, "{{.State.Pid}}")
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(out)
	if err == nil && pid == 0 {
		err = fmt.Errorf("container %s does not run", name)
	}
	return pid, err
}

// ContainerAddr is a container's IPv4 address in a network: "bridge" is the
// default one.
func (h *Host) ContainerAddr(ctx context.Context, name, network string) (string, error) {
	return h.Inspect(ctx, name, fmt.Sprintf("{{(index .NetworkSettings.Networks %q).IPAddress}}", network))
}

// Inspect is `docker inspect` with a template, trimmed.
func (h *Host) Inspect(ctx context.Context, name, format string) (string, error) {
	out, err := h.Docker(ctx, "inspect", "--format", format, "--", name)
	return strings.TrimSpace(out), err
}

// Container is the network namespace of a container, to dial from and listen in.
// Programs of the host's root can be run in it.
func (h *Host) Container(ctx context.Context, name string) (*Netns, error) {
	pid, err := h.ContainerPID(ctx, name)
	if err != nil {
		return nil, err
	}
	return h.openNetns(h.Path(fmt.Sprintf("/proc/%d/ns/net", pid)))
}
