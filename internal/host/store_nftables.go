package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// linux/netfilter/nf_tables.h and nfnetlink.h
const (
	nftMsgDelTable = 2
	nftMsgGetChain = 4
	nftMsgDelChain = 5
	nftaChainTable = 1
	nftaChainName  = 3

	nfnlBatchBegin   = 0x10
	nfnlBatchEnd     = 0x11
	nfnlBatchGenID   = 1
	nonRecursive     = 0x100 // NLM_F_NONREC: a delete of what still holds something is refused
	sizeofNfGenBytes = 4
)

// nfGen returns struct nfgenmsg.
func nfGen(family uint8, resource uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{family, unix.NFNETLINK_V0}, resource)
}

// cString returns an attribute that is a string.
func cString(kind uint16, text string) []byte { return attribute(kind, append([]byte(text), 0)) }

// nftNames lists the tables, or a table's chains, of one family.
func nftNames(c *netlink.Conn, message, nameAttribute uint16, family uint8, table string) ([]string, error) {
	answers, err := dump(c, nfnlSubsysNftables<<8|message, nfGen(family, 0))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, answer := range answers {
		name, of := "", ""
		err := eachAttribute(answer.Data, sizeofNfGenBytes, func(ad *netlink.AttributeDecoder) {
			switch ad.Type() {
			case nameAttribute:
				name = ad.String()
			case nftaChainTable:
				of = ad.String()
			}
		})
		if err != nil {
			return nil, err
		}
		if message == nftMsgGetTable || of == table {
			names = append(names, name)
		}
	}
	return names, nil
}

// nftDelete removes a chain or a table, if it is there and nothing is in it.
func nftDelete(c *netlink.Conn, family uint8, message uint16, table, chain string) error {
	data := append(nfGen(family, 0), cString(nftaTableName, table)...)
	if message == nftMsgDelChain { // NFTA_CHAIN_TABLE and NFTA_TABLE_NAME are the same number
		data = append(data, cString(nftaChainName, chain)...)
	}
	err := nftBatch(c, 0, netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(nfnlSubsysNftables<<8 | message), Flags: netlink.Request | nonRecursive},
		Data:   data,
	})
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// nftBatch carries out messages as one change. With a generation other than 0 it is ERESTART if the
// ruleset is not of it any more, and nothing is changed then.
func nftBatch(c *netlink.Conn, generation uint32, messages ...netlink.Message) error {
	begin := nfGen(0, nfnlSubsysNftables)
	if generation != 0 {
		begin = append(begin, attribute(nfnlBatchGenID, binary.BigEndian.AppendUint32(nil, generation))...)
	}
	batch := []netlink.Message{{Header: netlink.Header{Type: nfnlBatchBegin, Flags: netlink.Request}, Data: begin}}
	for _, message := range messages {
		message.Header.Flags |= netlink.Request | netlink.Acknowledge
		batch = append(batch, message)
	}
	batch = append(batch, netlink.Message{Header: netlink.Header{Type: nfnlBatchEnd, Flags: netlink.Request | netlink.Acknowledge}, Data: nfGen(0, nfnlSubsysNftables)})
	sent, err := c.SendMessages(batch)
	if err != nil {
		return err
	}
	// The kernel answers each message that asks for it, in order, and the end only if all went well.
	for range math.MaxInt16 {
		answers, err := c.Receive()
		if err != nil {
			return err
		}
		for _, answer := range answers {
			if answer.Header.Sequence == sent[len(sent)-1].Header.Sequence {
				return nil
			}
		}
	}
	return fmt.Errorf("nf_tables does not answer the end of a batch")
}
