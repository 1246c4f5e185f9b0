//go:build linux

package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// linux/netfilter/nf_tables.h and nfnetlink.h
const (
	nftMsgNewTable = 0
	nftMsgDelTable = 2
	nftMsgNewChain = 3
	nftMsgGetChain = 4
	nftMsgDelChain = 5
	nftMsgNewRule  = 6
	nftMsgGetRule  = 7
	nftMsgDelRule  = 8

	nftMsgNewSet     = 9
	nftMsgDelSet     = 11
	nftMsgNewSetElem = 12
	nftMsgDelSetElem = 14

	nftaChainName       = 3
	nftaChainHook       = 4
	nftaChainPolicy     = 5
	nftaChainType       = 7
	nftaRuleTable       = 1 // also NFTA_CHAIN_TABLE and NFTA_TABLE_NAME
	nftaRuleChain       = 2
	nftaRuleHandle      = 3
	nftaRuleExpressions = 4
	nftaRulePosition    = 6
	nftaRuleUserdata    = 7
	nftaTableFlags      = 2
	nftaSetName         = 2 // also NFTA_SET_ELEM_LIST_SET
	nftaSetFlags        = 3
	nftaSetKeyType      = 4
	nftaSetKeyLen       = 5
	nftaSetDataType     = 6
	nftaSetDataLen      = 7
	nftaSetDesc         = 9
	nftaSetID           = 10
	nftaSetUserdata     = 13
	nftaElemList        = 3
	nftaElemSetID       = 4

	nftSetAnonymous = 1
	nftSetConstant  = 2
	nftSetMap       = 8
	nftDataVerdict  = 0xffffff00

	nfnlBatchBegin = 0x10
	nfnlBatchEnd   = 0x11
	nfnlBatchGenID = 1
	nonRecursive   = 0x100 // NLM_F_NONREC: what still holds something is not deleted
)

// nfGen returns struct nfgenmsg.
func nfGen(family uint8, resource uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{family, unix.NFNETLINK_V0}, resource)
}

// cString returns an attribute that is a string.
func cString(kind uint16, text string) []byte { return attribute(kind, append([]byte(text), 0)) }

// nftDump returns the attributes of every object that a request gives.
func nftDump(c *netlink.Conn, message uint16, family uint8, attributes ...[]byte) ([]map[uint16][]byte, error) {
	answers, err := dump(c, nfnlSubsysNftables<<8|message, slices.Concat(append([][]byte{nfGen(family, 0)}, attributes...)...))
	if errors.Is(err, unix.ENOENT) {
		return nil, nil // of a table or chain that is not there
	}
	if errors.Is(err, unix.EINTR) || errors.Is(err, errMoving) {
		return nil, errRaced
	}
	if err != nil {
		return nil, err
	}
	var all []map[uint16][]byte
	for _, answer := range answers {
		one, err := nested(answer.Data, sizeofNfGenMsg)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// stringOf returns what an attribute that is a string says.
func stringOf(data []byte) string {
	if n := slices.Index(data, 0); n >= 0 {
		data = data[:n]
	}
	return string(data)
}

// nftTables lists the tables of a family.
func nftTables(c *netlink.Conn, family uint8) ([]string, error) {
	all, err := nftDump(c, nftMsgGetTable, family)
	var names []string
	for _, table := range all {
		names = append(names, stringOf(table[nftaTableName]))
	}
	return names, err
}

// nftChains lists the chains of a table, and the policies of its base chains.
func nftChains(c *netlink.Conn, family uint8, table string) (names []string, policies map[string]string, err error) {
	all, err := nftDump(c, nftMsgGetChain, family)
	policies = map[string]string{}
	for _, chain := range all {
		if stringOf(chain[nftaRuleTable]) != table {
			continue
		}
		name := stringOf(chain[nftaChainName])
		names = append(names, name)
		if policy := chain[nftaChainPolicy]; len(policy) == 4 { // NF_DROP is 0, NF_ACCEPT 1
			policies[name] = map[bool]string{false: "DROP", true: "ACCEPT"}[binary.BigEndian.Uint32(policy) == 1]
		}
	}
	return names, policies, err
}

// An nftRule is a rule as the kernel has it.
type nftRule struct {
	handle uint64
	raw    []byte // its expressions and user data, as attributes of a message
	key    string // the same without what it has counted: rules of one key are the same
}

// nftRules lists the rules of a chain in their order.
func nftRules(c *netlink.Conn, family uint8, table, chain string) ([]nftRule, error) {
	all, err := nftDump(c, nftMsgGetRule, family, cString(nftaRuleTable, table), cString(nftaRuleChain, chain))
	var rules []nftRule
	for _, one := range all {
		if stringOf(one[nftaRuleTable]) != table || stringOf(one[nftaRuleChain]) != chain {
			continue // an old kernel does not choose
		}
		if len(one[nftaRuleHandle]) != 8 {
			return nil, fmt.Errorf("a rule of %s has no handle", chain)
		}
		rule := nftRule{handle: binary.BigEndian.Uint64(one[nftaRuleHandle])}
		if expressions, ok := one[nftaRuleExpressions]; ok {
			rule.raw = attribute(nftaRuleExpressions|unix.NLA_F_NESTED, expressions)
			if rule.key, err = uncounted(expressions); err != nil {
				return nil, err
			}
		}
		if data, ok := one[nftaRuleUserdata]; ok {
			rule.raw = append(rule.raw, attribute(nftaRuleUserdata, data)...)
			rule.key += string(data)
		}
		rules = append(rules, rule)
	}
	return rules, err
}

// uncounted returns a rule's expressions without what its counter says.
func uncounted(expressions []byte) (string, error) {
	var key strings.Builder
	err := eachAttribute(expressions, 0, func(ad *netlink.AttributeDecoder) {
		const name, data = 1, 2
		expression, err := nested(ad.Bytes(), 0)
		if err == nil && stringOf(expression[name]) == "counter" {
			expression[data] = nil
		}
		fmt.Fprintf(&key, "%s %x;", expression[name], expression[data])
	})
	return key.String(), err
}

// nftBatch carries out messages as one change of the ruleset's generation. It is ERESTART, and nothing is
// changed, if the ruleset is of another one.
func nftBatch(c *netlink.Conn, generation uint32, messages ...netlink.Message) error {
	begin := append(nfGen(0, nfnlSubsysNftables), attribute(nfnlBatchGenID, binary.BigEndian.AppendUint32(nil, generation))...)
	batch := []netlink.Message{{Header: netlink.Header{Type: nfnlBatchBegin, Flags: netlink.Request}, Data: begin}}
	for i, message := range messages {
		message.Header.Flags |= netlink.Request
		if i == len(messages)-1 {
			message.Header.Flags |= netlink.Acknowledge
		}
		batch = append(batch, message)
	}
	batch = append(batch, netlink.Message{Header: netlink.Header{Type: nfnlBatchEnd, Flags: netlink.Request}, Data: nfGen(0, nfnlSubsysNftables)})
	if _, err := c.SendMessages(batch); err != nil {
		return err
	}
	// The kernel answers once the whole batch was carried out or refused: the first refusal tells why. Only
	// the last message is acknowledged, for a large batch's answers would not fit into the socket.
	_, err := c.Receive()
	var refusal *netlink.OpError
	if errors.As(err, &refusal) {
		err = refusal.Err
	}
	return err
}
