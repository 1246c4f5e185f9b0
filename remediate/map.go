package remediate

import (
	"context"
	"fmt"
)

// MapStore is a Store whose things are the entries of a map: for tests. A transaction is made whole or
// not at all.
type MapStore map[string]string

// Look implements [Store].
func (m MapStore) Look(_ context.Context, step Step) (Step, bool, error) {
	return step, Equal(m.get(step.Name), step.New), nil
}

// Swap implements [Store].
func (m MapStore) Swap(_ context.Context, steps []Step) ([]bool, error) {
	next := MapStore{}
	for name, value := range m {
		next[name] = value
	}
	changed := make([]bool, len(steps))
	for i, step := range steps {
		now := next.get(step.Name)
		switch {
		case Equal(now, step.New):
			if !step.Settle {
				continue
			}
		case !Equal(now, step.Old):
			return nil, Changed(step, now)
		default:
			changed[i] = true
		}
		next.put(step.Name, step.New)
		for _, also := range step.Also {
			if also.Kind != step.Kind {
				return nil, fmt.Errorf("%s: changes %s along, which another store holds", step.Object(), also.Object())
			}
			next.put(also.Name, also.New)
		}
	}
	clear(m)
	for name, value := range next {
		m[name] = value
	}
	return changed, nil
}

func (m MapStore) get(name string) *string {
	if value, ok := m[name]; ok {
		return &value
	}
	return nil
}

func (m MapStore) put(name string, value *string) {
	if value == nil {
		delete(m, name)
		return
	}
	m[name] = *value
}
