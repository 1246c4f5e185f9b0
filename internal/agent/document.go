package agent

import (
	"encoding/json"
	"fmt"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

func encodeSnapshot(s *netstate.Snapshot) ([]byte, error) { return json.Marshal(s) }

func decodeSnapshot(data []byte) (*netstate.Snapshot, error) {
	s := &netstate.Snapshot{}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	if s.Schema != netstate.Schema {
		return nil, fmt.Errorf("snapshot: its schema is %q, this netcheck reads %q", s.Schema, netstate.Schema)
	}
	return s, nil
}
