package nftwire

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/mdlayher/netlink"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// ErrMoved is why a dump cannot be used: the ruleset changed meanwhile.
var ErrMoved = errors.New("the ruleset changed while it was read")

// Read puts the whole ruleset together. It sends requests by execute, one after another, each with all its answers.
// A ruleset that changed meanwhile is read again, thrice in all; then the error is ErrMoved.
func Read(execute func(netlink.Message) ([]netlink.Message, error)) (*netstate.Ruleset, error) {
	const tries = 3
	for try := 1; ; try++ {
		ruleset, err := readOnce(execute)
		if err == nil || !errors.Is(err, ErrMoved) {
			return ruleset, err
		}
		if try == tries {
			return nil, fmt.Errorf("%w, %d times", err, tries)
		}
	}
}

func readOnce(execute func(netlink.Message) ([]netlink.Message, error)) (*netstate.Ruleset, error) {
	before, err := Generation(execute)
	if err != nil {
		return nil, err
	}
	d := NewDecoder()
	dumped := dump(execute, d)
	after, err := Generation(execute)
	switch {
	case err != nil:
		return nil, err
	case before != after:
		return nil, ErrMoved
	case dumped != nil:
		return nil, dumped
	}
	d.Ruleset.Generation = after
	return &d.Ruleset, nil
}

// dump reads everything once: what stands in other things after these.
func dump(execute func(netlink.Message) ([]netlink.Message, error), d *Decoder) error {
	for _, kind := range []uint16{GetTable, GetChain, GetSet, GetRule, GetObj, GetFlowtable} {
		if err := dumpOne(execute, d, request(kind, nil)); err != nil {
			return err
		}
	}
	for _, set := range d.setIDs() {
		if err := dumpOne(execute, d, set.request()); err != nil {
			return err
		}
	}
	return nil
}

func dumpOne(execute func(netlink.Message) ([]netlink.Message, error), d *Decoder, request netlink.Message) error {
	answers, err := execute(request)
	if errors.Is(err, syscall.EINTR) || errors.Is(err, syscall.ENOENT) {
		return ErrMoved // the kernel says so of a dump that it cannot go on with, or of a set that went
	}
	if err != nil {
		return err
	}
	for _, answer := range answers {
		if answer.Header.Flags&netlink.DumpInterrupted != 0 {
			return ErrMoved
		}
		if err := d.Add(answer); err != nil {
			return err
		}
	}
	return nil
}

// Generation asks for the number of the ruleset's present state.
func Generation(execute func(netlink.Message) ([]netlink.Message, error)) (uint32, error) {
	question := request(GetGen, nil)
	question.Header.Flags = netlink.Request
	answers, err := execute(question)
	if err != nil {
		return 0, err
	}
	d := NewDecoder()
	for _, answer := range answers {
		if err := d.Add(answer); err != nil {
			return 0, err
		}
	}
	return d.Ruleset.Generation, nil
}
