//go:build linux

package host

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

// An address is an engine's.
type address string

func (a address) Dialer() func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", string(a))
	}
}

// The headers of an engine's answer tell its versions; another program's tell nothing.
func TestHeader(t *testing.T) {
	for server, want := range map[string]string{
		"Docker/20.10.24+dfsg1 (linux)": "20.10.24+dfsg1",
		"Docker/28.5.2 (linux)":         "28.5.2",
		"Libpod/5.4.2 (linux)":          "",
		"":                              "",
	} {
		engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Server", server)
			w.Header().Set("Api-Version", "1.51")
		}))
		api, version := header(t.Context(), address(engine.Listener.Addr().String()))
		engine.Close()
		if version != want || (want != "") != (api == "1.51") {
			t.Errorf("%q: version %q, API %q", server, version, api)
		}
	}
	if api, version := header(t.Context(), address("127.0.0.1:1")); api != "" || version != "" {
		t.Errorf("nobody answers: %q, %q", api, version)
	}
}
