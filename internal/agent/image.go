package agent

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/client"

	"github.com/docker-netcheck/docker-netcheck/internal/host"
)

// Repository is the name of the helper's images. Their tags are digests of what is in them.
const Repository = "docker-netcheck-agent"

// entrypoint is the program in an image.
const entrypoint = "/docker-netcheck"

// ensureImage makes sure that the engine has the image of the helper, and returns its reference.
func ensureImage(ctx context.Context, docker client.APIClient, o Options) (ref string, err error) {
	if o.Image != "" {
		_, err := docker.ImageInspect(ctx, o.Image)
		if errdefs.IsNotFound(err) {
			return "", fmt.Errorf("--agent-image %s: the engine does not have it: docker pull it, or docker load it there", o.Image)
		}
		return o.Image, err
	}
	// An image of our own binary is there only if the engine's architecture is ours.
	if runtime.GOOS == "linux" {
		own, err := os.Executable()
		if err != nil {
			return "", err
		}
		layer, err := readLayer(own)
		if err != nil {
			return "", err
		}
		if there, err := layer.there(ctx, docker); there || err != nil {
			return layer.ref(), err
		}
	}
	info, err := docker.Info(ctx)
	if err != nil {
		return "", err
	}
	program, arch, err := programFor(info)
	if err != nil {
		return "", err
	}
	layer, err := readLayer(program)
	if err != nil {
		return "", err
	}
	if there, err := layer.there(ctx, docker); there || err != nil {
		return layer.ref(), err
	}
	fmt.Fprintf(o.Notes, "docker netcheck: first use: bringing the helper to the engine (%d MB), image %s\n", (len(layer.tar)+500_000)/1_000_000, layer.ref())
	if err := layer.bring(ctx, docker, arch); err != nil {
		return "", err
	}
	return layer.ref(), nil
}

// architectures are those that netcheck is built for: Go's name by the engine's, which is uname's.
var architectures = map[string]string{"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}

// programFor returns the binary that runs on the engine's host.
func programFor(info system.Info) (path, arch string, err error) {
	if info.OSType != "linux" {
		return "", "", fmt.Errorf("the engine runs %s containers: only Linux hosts can be looked at", info.OSType)
	}
	arch = architectures[info.Architecture]
	if arch == "" {
		arch = info.Architecture
	}
	own, err := os.Executable()
	if err != nil {
		return "", "", err
	}
	if runtime.GOOS == "linux" && arch == runtime.GOARCH {
		return own, arch, nil
	}
	if real, err := filepath.EvalSymlinks(own); err == nil {
		own = real
	}
	path = filepath.Join(filepath.Dir(own), "netcheck-agent-linux-"+arch)
	if _, err := os.Stat(path); err != nil {
		return "", "", fmt.Errorf("the engine's host is linux/%s: put netcheck's build for it at %s, or give --agent-image: %w", arch, path, errors.Unwrap(err))
	}
	return path, arch, nil
}

// A layer is the file system of an image: the program, and a place for the host's root. It depends on the
// program alone, and so does its digest.
type layer struct {
	tar    []byte
	digest string // "sha256:…", as an engine has it in RootFS.Layers
}

func readLayer(program string) (*layer, error) {
	data, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	binary, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%s: is no Linux program", program)
	}
	if slices.ContainsFunc(binary.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return nil, fmt.Errorf("%s: needs libraries, which an image of it alone does not have: build it with CGO_ENABLED=0", program)
	}
	var out bytes.Buffer
	out.Grow(len(data) + 4096)
	w := tar.NewWriter(&out)
	for _, header := range []tar.Header{
		{Typeflag: tar.TypeDir, Name: strings.TrimPrefix(hostRoot, "/") + "/", Mode: 0o755},
		{Typeflag: tar.TypeReg, Name: strings.TrimPrefix(entrypoint, "/"), Mode: 0o755, Size: int64(len(data))},
	} {
		if err := w.WriteHeader(&header); err != nil {
			return nil, err
		}
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	digest := sha256.Sum256(out.Bytes())
	return &layer{out.Bytes(), "sha256:" + hex.EncodeToString(digest[:])}, nil
}

func (l *layer) tag() string { return strings.TrimPrefix(l.digest, "sha256:")[:12] }

func (l *layer) ref() string { return Repository + ":" + l.tag() }

// there says whether the engine has the image, with just this in it.
func (l *layer) there(ctx context.Context, docker client.APIClient) (bool, error) {
	i, err := docker.ImageInspect(ctx, l.ref())
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil && len(i.RootFS.Layers) == 1 && i.RootFS.Layers[0] == l.digest, err
}

// bring imports the image.
func (l *layer) bring(ctx context.Context, docker client.APIClient, arch string) error {
	var source io.Reader = bytes.NewReader(l.tar)
	if socketOf(docker.DaemonHost()) == "" { // over a network it is worth its time
		var packed bytes.Buffer
		w, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
		if err != nil {
			return err
		}
		w.Write(l.tar) // into memory
		w.Close()
		source = &packed
	}
	answer, err := docker.ImageImport(ctx, image.ImportSource{Source: source, SourceName: "-"}, Repository, image.ImportOptions{
		Tag: l.tag(), Platform: "linux/" + arch,
		Message: "docker netcheck's own program, for helper containers",
		Changes: []string{
			`ENTRYPOINT ["` + entrypoint + `"]`,
			"LABEL " + host.AgentLabel + "=image",
			`LABEL org.opencontainers.image.description="docker netcheck's helper. docker netcheck agent rm removes it"`,
		},
	})
	if err != nil {
		return fmt.Errorf("import of the helper's image: %w", err)
	}
	defer answer.Close()
	// What goes wrong while it is stored comes in the stream: {"error": "no space left on device"}.
	messages := json.NewDecoder(answer)
	for {
		var message struct {
			Error string `json:"error"`
		}
		err := messages.Decode(&message)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("import of the helper's image: %w", err)
		case message.Error != "":
			return fmt.Errorf("import of the helper's image: %s", message.Error)
		}
	}
}
