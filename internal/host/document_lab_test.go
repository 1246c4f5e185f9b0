//go:build linux

package host

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/lab"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// TestCollectedDocument saves and reads snapshots of real hosts: nothing is lost, and what was collected
// is what Decode takes for sound.
func TestCollectedDocument(t *testing.T) {
	for _, suite := range lab.Suites() {
		t.Run(suite, func(t *testing.T) {
			h := lab.New(t, lab.Options{Suite: suite, Firewalld: suite != lab.Bookworm, IPv6: true})
			if err := h.Web(t.Context(), "web", "-p", "80:80", "-p", "127.0.0.1:81:80/udp"); err != nil {
				t.Fatal(err)
			}
			if _, err := h.Sh(t.Context(), `
				docker network create other >/dev/null
				docker network connect other web
				docker run -d --name beside --network container:web bb:1 sleep 1000 >/dev/null
				docker create --name never -p 90:90 bb:1 >/dev/null
				nft -f - <<-EOF
				table inet mine {
					set s { type ipv4_addr . inet_service; flags interval; elements = { 192.0.2.0/24 . 1-99, 198.51.100.1 . 80 }; }
					chain c {
						type filter hook forward priority 5; policy accept;
						ip saddr . tcp dport @s counter limit rate 5/second log prefix "x"
					}
				}
				EOF
				ip link add name "$(printf 'v\377')" type veth peer name "$(printf 'v\376')"
			`); err != nil {
				t.Fatal(err)
			}
			if differs := collectIn(t, h, collectRequest{All: true, Parts: netstate.All, Document: true}).Error; differs != "" {
				t.Error(differs)
			}
			if differs := collectIn(t, h, collectRequest{Containers: []string{"never"}, Parts: netstate.All, Document: true}).Error; differs != "" {
				t.Error(differs)
			}
		})
	}
}

// documentDiffers says how a snapshot differs from what its document says, or "".
func documentDiffers(s *netstate.Snapshot) string {
	var text, again bytes.Buffer
	if err := s.Encode(&text); err != nil {
		return err.Error()
	}
	saved := bytes.Clone(text.Bytes())
	back, err := netstate.Decode(&text)
	if err != nil {
		return err.Error()
	}
	if err := back.Encode(&again); err != nil {
		return err.Error()
	}
	if !bytes.Equal(saved, again.Bytes()) {
		return "the second document differs from the first"
	}
	redacted := back.Redact()
	if err := redacted.Validate(); err != nil {
		return "redacted: " + err.Error()
	}
	if !reflect.DeepEqual(redacted, redacted.Redact()) {
		return "what is redacted is changed once more: " + differs("snapshot", reflect.ValueOf(*redacted), reflect.ValueOf(*redacted.Redact()))
	}
	// Names that are no UTF-8 are written otherwise: see Encode.
	s.Host.Links, back.Host.Links = nil, nil
	s.Host.Addrs, back.Host.Addrs = nil, nil
	s.Host.Sysctls, back.Host.Sysctls = nil, nil
	return differs("snapshot", reflect.ValueOf(*s), reflect.ValueOf(*back))
}

// differs names the first place at which two values are not reflect.DeepEqual.
func differs(path string, a, b reflect.Value) string {
	if reflect.DeepEqual(a.Interface(), b.Interface()) {
		return ""
	}
	switch a.Kind() {
	case reflect.Struct:
		for i := range a.NumField() {
			if !a.Type().Field(i).IsExported() {
				continue
			}
			if d := differs(path+"."+a.Type().Field(i).Name, a.Field(i), b.Field(i)); d != "" {
				return d
			}
		}
	case reflect.Slice:
		for i := range min(a.Len(), b.Len()) {
			if d := differs(fmt.Sprintf("%s[%d]", path, i), a.Index(i), b.Index(i)); d != "" {
				return d
			}
		}
	case reflect.Map:
		for _, key := range a.MapKeys() {
			if other := b.MapIndex(key); other.IsValid() {
				if d := differs(fmt.Sprintf("%s[%v]", path, key), a.MapIndex(key), other); d != "" {
					return d
				}
			}
		}
	case reflect.Pointer, reflect.Interface:
		if !a.IsNil() && !b.IsNil() {
			return differs(path, a.Elem(), b.Elem())
		}
	}
	return fmt.Sprintf("%s: the document says %#v, it is %#v", path, b, a)
}
