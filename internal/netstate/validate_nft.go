package netstate

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
)

// Sizes of the kernel's. Source: struct nft_regs, NFT_REG32_COUNT, NFT_DATA_VALUE_MAXLEN.
const (
	nftFirstReg = 16
	nftRegsEnd  = 80
	nftMostData = 64
)

var nftFamilies = []string{"ip", "ip6", "inet", "arp", "bridge", "netdev"}

// validate refuses what the kernel could not hold: names twice in a table, data or registers beyond the
// register file, keys that are not of their set's length.
func (r *Ruleset) validate(path string) error {
	if r == nil {
		return nil
	}
	if err := unique(r.Tables, path+".tables", "family and name", func(t NftTable) string { return t.Family + " " + t.Name }); err != nil {
		return err
	}
	return first(r.Tables, path+".tables", func(t NftTable) error {
		if !slices.Contains(nftFamilies, t.Family) {
			return fmt.Errorf("family is %s", quoteShort(t.Family))
		}
		for _, err := range []error{
			unique(t.Chains, "chains", "name", func(c NftChain) string { return c.Name }),
			unique(t.Sets, "sets", "name", func(s NftSet) string { return s.Name }),
			unique(t.Objects, "objects", "type and name", func(o NftObject) string { return o.Type + " " + o.Name }),
			first(t.Chains, "chains", func(c NftChain) error {
				return first(c.Rules, "rules", func(r NftRule) error { return validExprs(r.Exprs) })
			}),
			first(t.Sets, "sets", validNftSet),
			first(t.Objects, "objects", func(o NftObject) error { return validExprs(o.Exprs) }),
		} {
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func validNftSet(s NftSet) error {
	if s.KeyLen > nftMostData || s.DataLen > nftMostData {
		return fmt.Errorf("keys of %d and data of %d bytes: the most is %d", s.KeyLen, s.DataLen, nftMostData)
	}
	padded := uint64(0)
	for _, size := range s.Fields {
		padded += (uint64(size) + 3) &^ 3
	}
	if len(s.Fields) > 0 && len(s.Opaque) == 0 && padded != uint64(s.KeyLen) {
		return fmt.Errorf("fields have %d bytes, keys %d", padded, s.KeyLen)
	}
	if err := validExprs(s.Exprs); err != nil {
		return err
	}
	return first(s.Elements, "elements", func(e NftElement) error {
		switch {
		case len(e.Opaque) > 0: // nobody relies on it
		case !e.CatchAll && len(e.Key) != int(s.KeyLen), len(e.KeyEnd) > 0 && len(e.KeyEnd) != int(s.KeyLen):
			return fmt.Errorf("key has %d bytes, want %d", len(e.Key), s.KeyLen)
		case len(e.Data) > nftMostData:
			return fmt.Errorf("data has %d bytes, want at most %d", len(e.Data), nftMostData)
		}
		return validExprs(e.Exprs)
	})
}

func validExprs(exprs NftExprs) error {
	return first(exprs, "exprs", func(e NftExpr) error {
		v := reflect.ValueOf(e).Elem()
		for i := range v.NumField() {
			if reg, ok := v.Field(i).Interface().(NftReg); ok && !validReg(reg) {
				return fmt.Errorf("%s: register %d: there is none at that byte", e.Name(), reg)
			}
		}
		switch e := e.(type) {
		case *NftPayload:
			return fitsRegs(e.Name(), e.Len)
		case *NftExthdr:
			return fitsRegs(e.Name(), e.Len)
		case *NftHash:
			return fitsRegs(e.Name(), e.Len)
		case *NftByteorder:
			return fitsRegs(e.Name(), e.Len)
		case *NftCmp:
			return fitsRegs(e.Name(), len(e.Data))
		case *NftRange:
			return cmp.Or(fitsRegs(e.Name(), len(e.From)), fitsRegs(e.Name(), len(e.To)))
		case *NftBitwise:
			return cmp.Or(fitsRegs(e.Name(), e.Len), fitsRegs(e.Name(), len(e.Mask)), fitsRegs(e.Name(), len(e.Xor)))
		case *NftImmediate:
			return fitsRegs(e.Name(), len(e.Data))
		case *NftDynset:
			return validExprs(e.Exprs)
		case *NftInner:
			return validExprs(e.Exprs)
		}
		return nil
	})
}

// validReg says whether data, the verdict or nothing is at that byte of the register file.
func validReg(reg NftReg) bool {
	return reg == NoReg || reg == VerdictReg || reg >= nftFirstReg && reg < nftRegsEnd && reg%4 == 0
}

func fitsRegs[N int | uint32](name string, n N) error {
	if n > nftMostData {
		return fmt.Errorf("%s: %d bytes, the registers have %d", name, n, nftMostData)
	}
	return nil
}
