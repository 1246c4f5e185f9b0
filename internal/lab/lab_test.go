//go:build linux

package lab_test

import (
	"context"
	"testing"
	"time"

	"github.com/docker-netcheck/docker-netcheck/internal/lab"
)

func TestQuick(t *testing.T) {
	ctx := context.Background()
	if _, err := lab.Root(ctx, lab.Bookworm); err != nil { t.Fatal(err) }
	t0 := time.Now()
	h := lab.New(t, lab.Options{})
	t.Log("start", time.Since(t0)); t0 = time.Now()
	if err := h.Web(ctx, "web", "-p", "80:80"); err != nil { t.Fatal(err) }
	t.Log("web", time.Since(t0)); t0 = time.Now()
	b, err := h.Clients[0].Get(ctx, "http://198.51.100.15/")
	t.Log(b, err, time.Since(t0)); t0 = time.Now()
	s, err := h.State(ctx, "web")
	t.Log(err, len(s), time.Since(t0))
	t.Log(s)
	t0 = time.Now()
	h.Close()
	t.Log(time.Since(t0))
}
