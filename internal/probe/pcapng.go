//go:build linux

package probe

import (
	"bytes"
	"fmt"
	"io"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// A File writes a capture as pcapng, which Wireshark and tcpdump open: one interface a hop.
//
// After every Write the file is whole. If one fails (the disk is full), what came of it is cut off again
// where the writer has a Truncate, as *os.File does.
type File struct {
	out   io.Writer
	buf   bytes.Buffer
	ng    *pcapgo.NgWriter
	sound int64 // bytes that are whole
}

// NewFile starts a file for a capture.
func (c *Capture) NewFile(out io.Writer) (*File, error) {
	f := &File{out: out}
	for i, p := range c.places {
		hop := c.interfaceOf(p)
		if i > 0 {
			if _, err := f.ng.AddInterface(hop); err != nil {
				return nil, err
			}
			continue
		}
		var err error
		f.ng, err = pcapgo.NewNgWriterInterface(&f.buf, hop, pcapgo.NgWriterOptions{
			SectionInfo: pcapgo.NgSectionInfo{Application: "docker netcheck capture"},
		})
		if err != nil {
			return nil, err
		}
	}
	return f, f.flush()
}

// interfaceOf describes a hop: its link's name, and hop, namespace and MAC in words. It knows them from the snapshot:
// the links may be another machine's.
func (c *Capture) interfaceOf(p place) pcapgo.NgInterface {
	i := pcapgo.NgInterface{
		Name: p.link, Description: fmt.Sprintf("%s, %s", p.hop, p.where()), OS: "linux", LinkType: layers.LinkTypeEthernet,
		SnapLength: uint32(c.options.Snaplen), TimestampResolution: 9,
	}
	if p.mac != "" {
		i.Description += ", MAC " + p.mac
	}
	if p.raw {
		i.LinkType = layers.LinkTypeRaw
	}
	return i
}

// Write appends a packet.
func (f *File) Write(p Packet) error {
	err := f.ng.WritePacket(gopacket.CaptureInfo{
		Timestamp: p.Time, CaptureLength: len(p.Data), Length: max(p.Length, len(p.Data)), InterfaceIndex: p.Place,
	}, p.Data)
	if err != nil {
		return err
	}
	return f.flush()
}

// flush writes what is in the buffer, whole or not at all.
func (f *File) flush() error {
	if err := f.ng.Flush(); err != nil {
		return err
	}
	n, err := f.out.Write(f.buf.Bytes())
	if err == nil && n < f.buf.Len() {
		err = io.ErrShortWrite
	}
	if err != nil {
		if file, ok := f.out.(interface{ Truncate(int64) error }); ok {
			file.Truncate(f.sound)
		}
		return err
	}
	f.sound += int64(n)
	f.buf.Reset()
	return nil
}
