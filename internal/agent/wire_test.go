package agent

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/docker-netcheck/docker-netcheck/internal/host"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

func TestMessagesArriveAsTheyWere(t *testing.T) {
	want := []request{
		{Do: doCollect, Engine: engine{API: "1.41", Container: "c"}, Collect: &collection{Containers: []string{"web"}, Parts: netstate.All}},
		{Do: doUndo, Run: "3"},
		{Do: doCapture, Capture: &capture{Container: "c", Port: netstate.Port{Number: 80, Proto: "tcp"}}},
	}
	var wire bytes.Buffer
	for _, q := range want {
		if err := send(&wire, q); err != nil {
			t.Fatal(err)
		}
	}
	r := bufio.NewReader(&wire)
	for i := range want {
		var got request
		if err := receive(r, maxRequest, &got); err != nil {
			t.Fatal(err)
		}
		if got.Collect != nil && got.Collect.Filters.Len() == 0 {
			got.Collect.Filters = want[i].Collect.Filters
		}
		if d := cmp.Diff(want[i], got, cmp.Comparer(func(a, b collection) bool { return fmt.Sprint(a) == fmt.Sprint(b) }),
			cmp.Comparer(func(a, b capture) bool { return fmt.Sprint(a) == fmt.Sprint(b) })); d != "" {
			t.Error(d)
		}
	}
	var none request
	if err := receive(r, maxRequest, &none); err != io.EOF {
		t.Errorf("after the last message: %v, want io.EOF", err)
	}
}

func TestHostileMessagesAreRefused(t *testing.T) {
	body := `{"do":"history","engine":{"api":"","container":""}}`
	for name, text := range map[string]string{
		"another program": "HTTP/1.1 400 Bad Request\r\n\r\n",
		"another version": fmt.Sprintf("netcheck.agent/v2 %d\n%s", len(body), body),
		"no end of line":  strings.Repeat("x", 1<<20),
		"no length":       Schema + "\n" + body,
		"negative":        Schema + " -1\n" + body,
		"too long":        fmt.Sprintf("%s %d\n%s", Schema, maxRequest+1, body),
		"overflow":        Schema + " 99999999999999999999\n" + body,
		"cut off":         fmt.Sprintf("%s %d\n%s", Schema, len(body)+1, body),
		"in its header":   Schema,
		"no JSON":         Schema + " 3\nabc",
		"empty":           Schema + " 0\n",
		"unknown key":     Schema + " 10\n{\"sudo\":1}",
		"two values":      fmt.Sprintf("%s %d\n%s%s", Schema, 2*len(body), body, body),
	} {
		var q request
		if err := receive(bufio.NewReader(strings.NewReader(text)), maxRequest, &q); err == nil || err == io.EOF {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestErrorsArriveAsTheyWere(t *testing.T) {
	refused := &remediate.RefusedError{Run: "4", Refused: []remediate.Refusal{{Object: "link veth1", Why: "is gone"}}}
	for _, want := range []error{
		fmt.Errorf("%w: web", host.ErrNoContainer),
		fmt.Errorf("iptables filter FORWARD: %w", remediate.ErrChanged),
		errors.Join(context.Canceled, refused),
		errors.New("something else"),
	} {
		var wire bytes.Buffer
		if err := send(&wire, reply{Error: failureOf(want)}); err != nil {
			t.Fatal(err)
		}
		var a reply
		if err := receive(bufio.NewReader(&wire), maxReply, &a); err != nil {
			t.Fatal(err)
		}
		got := a.Error.err()
		if got == nil || got.Error() != want.Error() {
			t.Errorf("%v, want %v", got, want)
		}
		for name, sentinel := range sentinels {
			if errors.Is(got, sentinel) != errors.Is(want, sentinel) {
				t.Errorf("%v is %s: %v, want %v", want, name, errors.Is(got, sentinel), errors.Is(want, sentinel))
			}
		}
		var r1, r2 *remediate.RefusedError
		if errors.As(got, &r1) != errors.As(want, &r2) || cmp.Diff(r1, r2) != "" {
			t.Errorf("%v: %s", want, cmp.Diff(r1, r2))
		}
	}
	if (*failure)(nil).err() != nil {
		t.Error("no failure is an error")
	}
}

func FuzzReceive(f *testing.F) {
	f.Add([]byte(Schema + " 17\n{\"do\":\"collect\"}\n"))
	f.Add([]byte(Schema + " 2\n{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var q request
		if receive(bufio.NewReader(bytes.NewReader(data)), maxRequest, &q) == nil && q.Plan != nil {
			_, _ = remediate.ParsePlan(q.Plan)
		}
		var a reply
		_ = receive(bufio.NewReader(bytes.NewReader(data)), maxReply, &a)
	})
}
